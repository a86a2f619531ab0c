"""Answers of a model to prompts, whose items data-parallel ranks share out."""

from collections.abc import Callable, Mapping, Sequence
from typing import TypeVar

import torch
from torch import Tensor

from lit_entrodrop.model.causal_lm import CausalLM
from lit_entrodrop.model.clean_pass import score_clean
from lit_entrodrop.model.generation import continue_prompts
from lit_entrodrop.runtime.progress import track
from lit_entrodrop.runtime.ranks import DataRank, all_agree, gather, of_group
from regularizers.functional import IGNORE_INDEX

TITLE = "Scoring the task"

T = TypeVar("T")


def generate(
    causal_lm: CausalLM,
    prompts: Sequence[Sequence[int]],
    new_tokens: int,
    ends: Callable[[Sequence[int]], bool],
    batch_size: int,
    ranks: DataRank,
) -> list[list[int]]:
    """Continue prompts greedily; call it on every rank with the same arguments.

    Args:
        causal_lm: The model.
        prompts: Token ids of each prompt; the context has room for `new_tokens` after each.
        new_tokens: Maximum number of tokens per prompt.
        ends: Function that returns whether an output ends with its last token.
        batch_size: Number of prompts per forward pass of a rank.
        ranks: Data-parallel rank of this process.

    Returns:
        New tokens of each prompt, up to the end of the output or longer, the same on every rank.
    """
    found: dict[int, list[int]] = {}
    for batch in track(deal([*map(len, prompts)], ranks, batch_size), TITLE, unit="batches"):
        ended = [False] * len(batch)

        def choose(logits: Tensor) -> list[int]:
            # Kernels may differ between the ranks of a group, which must continue alike.
            return of_group(logits.argmax(-1).tolist(), ranks)

        def done(outputs: list[list[int]], ended: list[bool] = ended) -> bool:
            ended[:] = [each or ends(output) for each, output in zip(ended, outputs, strict=True)]
            return all_agree(all(ended))

        chosen = [prompts[number] for number in batch]
        outputs = continue_prompts(causal_lm, chosen, new_tokens, choose, done)
        found |= dict(zip(batch, outputs, strict=True))
    return _of_all_ranks(found)


def log_likelihoods(
    causal_lm: CausalLM,
    pairs: Sequence[tuple[Sequence[int], Sequence[int]]],
    batch_size: int,
    ranks: DataRank,
) -> list[float]:
    """Return the log-likelihood of each continuation, nats; call it on every rank alike.

    Args:
        causal_lm: The model.
        pairs: Token ids of a prompt and of its continuation, at least one each.
        batch_size: Number of pairs per forward pass of a rank.
        ranks: Data-parallel rank of this process.
    """
    found: dict[int, float] = {}
    lengths = [len(prompt) + len(continuation) for prompt, continuation in pairs]
    for batch in track(deal(lengths, ranks, batch_size), TITLE, unit="batches"):
        ids = torch.zeros(len(batch), max(lengths[number] for number in batch), dtype=torch.long)
        labels = torch.full_like(ids, IGNORE_INDEX)
        for row, number in enumerate(batch):
            prompt, continuation = pairs[number]
            ids[row, : lengths[number]] = torch.tensor([*prompt, *continuation])
            counted = slice(len(prompt), lengths[number])
            labels[row, counted] = ids[row, counted]
        tensors = {
            "input_ids": ids,
            "labels": labels,
            "position_ids": torch.arange(ids.shape[1]).expand_as(ids),
            # Later tokens do not affect earlier ones, so that padding needs no document of its own.
            "document_ids": torch.zeros_like(ids),
        }
        on_device = {name: tensor.to(causal_lm.device) for name, tensor in tensors.items()}
        nll = score_clean(causal_lm, on_device).nll.cpu().double()
        sums = -nll.where(labels != IGNORE_INDEX, 0).sum(1)
        found |= dict(zip(batch, sums.tolist(), strict=True))
    return _of_all_ranks(found)


def deal(lengths: Sequence[int], ranks: DataRank, batch_size: int) -> list[list[int]]:
    """Return the batches of this rank, as numbers of items; similar lengths share a batch.

    Every rank gets equally many batches, because a sharded model is run by all ranks together. A
    rank with too few items repeats one.

    >>> deal([3, 9, 4], DataRank(2, 0, True), 1), deal([3, 9, 4], DataRank(2, 1, True), 1)
    ([[0], [1]], [[2], [2]])
    """
    by_length = sorted(range(len(lengths)), key=lengths.__getitem__)
    own = by_length[ranks.rank :: ranks.size] or by_length[:1]
    starts = range(0, len(by_length[:: ranks.size]), batch_size)
    return [own[start : start + batch_size] or own[:1] for start in starts]


def _of_all_ranks(found: Mapping[int, T]) -> list[T]:
    merged: dict[int, T] = {}
    for part in gather(found):
        merged |= part
    return [merged[number] for number in sorted(merged)]
