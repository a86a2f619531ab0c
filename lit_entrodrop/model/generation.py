"""Generate text with any causal LM by the forward pass of training, sharded or not."""

import math
from collections.abc import Callable, Container, Sequence
from itertools import takewhile

import torch
from torch import Tensor

from lit_entrodrop.model.causal_lm import CausalLM
from lit_entrodrop.model.probing import eval_mode


def continue_prompts(
    causal_lm: CausalLM,
    prompts: Sequence[Sequence[int]],
    new_tokens: int,
    choose: Callable[[Tensor], Sequence[int]],
    done: Callable[[list[list[int]]], bool] = lambda continuations: False,
) -> list[list[int]]:
    """Continue a batch of prompts, with one full forward pass per token.

    A key-value cache would be faster, but not every strategy supports one. Sharded models gather
    weights in each pass, so all ranks must run equally many passes: they must call this function
    with equal `new_tokens`, and with prompts that are the same or leave room for these.

    Args:
        causal_lm: The model, on the device of the computation.
        prompts: Token ids of each prompt, at least one.
        new_tokens: Number of tokens per prompt; fewer where the model's context ends.
        choose: Function that maps the logits ``[B, V]`` of the next tokens to token ids.
        done: Function that returns, given the new tokens of each prompt so far, whether to stop; it
            must return the same on all ranks. By default none stops early.

    Returns:
        The new tokens of each prompt.

    >>> from lit_entrodrop.model.building import build_causal_lm
    >>> from lit_entrodrop.model.config import LMConfig
    >>> greedy = lambda logits: logits.argmax(-1).tolist()
    >>> len(continue_prompts(build_causal_lm(LMConfig()), [[5, 6, 7]], 2, greedy)[0])
    2
    """
    context = getattr(causal_lm.unwrapped.config, "max_position_embeddings", None) or math.inf
    lengths = [len(prompt) for prompt in prompts]
    width = int(min(max(lengths) + new_tokens, context))
    # Later positions do not affect earlier ones, so their ids are arbitrary.
    ids = torch.zeros(len(prompts), width, dtype=torch.long)
    for row, prompt in zip(ids, prompts, strict=True):
        row[: min(len(prompt), width)] = torch.tensor(prompt[:width])
    rows, ends = torch.arange(len(prompts)), torch.tensor(lengths)
    continuations: list[list[int]] = [[] for _ in prompts]
    for _ in range(min(new_tokens, width - max(lengths))):
        chosen = choose(next_logits(causal_lm, ids, ends))
        ids[rows, ends] = torch.tensor(chosen)
        ends = ends + 1
        for continuation, token in zip(continuations, chosen, strict=True):
            continuation.append(token)
        if done(continuations):
            break
    return continuations


def next_logits(causal_lm: CausalLM, ids: Tensor, ends: Tensor) -> Tensor:
    """Return the logits ``[B, V]`` of the next token of each row, fp32 on the CPU.

    Args:
        causal_lm: The model.
        ids: Token ids ``[B, T]`` int64.
        ends: Number of tokens ``[B]`` int64 of each row, at least 1; later ids are ignored.
    """
    batch = {
        "input_ids": ids,
        "labels": ids,
        "position_ids": torch.arange(ids.shape[1]).expand_as(ids),
        "document_ids": torch.zeros_like(ids),
        # The logits at t predict token t + 1.
        "logits_at": ends - 1,
    }
    on_device = {name: tensor.to(causal_lm.device) for name, tensor in batch.items()}
    with eval_mode(causal_lm):
        logits: Tensor = causal_lm(**on_device)
    return logits.float().cpu()


def sample_tokens(logits: Tensor, temperature: float, generator: torch.Generator) -> list[int]:
    """Sample a token for each row.

    Args:
        logits: Logits ``[B, V]``, on the CPU.
        temperature: Divisor of the logits; 0 selects the most likely token.
        generator: Random number generator.

    >>> sample_tokens(torch.tensor([[0.0, 2.0, 1.0]]), 0.0, torch.Generator())
    [1]
    """
    if temperature == 0:
        return logits.argmax(-1).tolist()
    shares = (logits / temperature).softmax(-1)
    return torch.multinomial(shares, 1, generator=generator).flatten().tolist()


def truncate_at(tokens: list[int], stop: Container[int]) -> list[int]:
    """Return the tokens before the first one that ends the text.

    >>> truncate_at([3, 0, 4], stop=[0, 9])
    [3]
    """
    return list(takewhile(lambda token: token not in stop, tokens))
