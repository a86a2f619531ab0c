"""Probe a Hugging Face model by running it on a few tokens."""

import contextlib
import inspect
from collections.abc import Callable, Iterator
from functools import cache
from typing import cast

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel


def model_arguments(
    hf_model: PreTrainedModel, input_ids: Tensor, position_ids: Tensor | None = None
) -> dict[str, Tensor | bool]:
    """Return the arguments that isolate packed documents, if the model supports it.

    Transformers isolates documents by their position ids only if there is neither an attention
    mask nor a cache. Without position ids, each row is one document.
    """
    arguments: dict[str, Tensor | bool] = {"input_ids": input_ids, "use_cache": False}
    if _takes_positions(type(hf_model).forward):
        if position_ids is None:
            position_ids = torch.arange(input_ids.shape[1], device=input_ids.device)[None]
        arguments["position_ids"] = position_ids
    return arguments


def embedding_rows(hf_model: PreTrainedModel) -> int:
    """Return the number of rows of a model's embedding matrix."""
    return len(cast(nn.Embedding, hf_model.get_input_embeddings()).weight)


def probe_ids(hf_model: PreTrainedModel, length: int) -> Tensor:
    """Return distinct token ids to run a model on, ``[1, length]`` int64."""
    ids = torch.arange(length, device=hf_model.device)[None] * 7919 + 1
    return ids % embedding_rows(hf_model)


@contextlib.contextmanager
def eval_mode(module: nn.Module) -> Iterator[None]:
    """Put a module in eval mode and disable gradients inside the context."""
    was_training = module.training
    try:
        with torch.no_grad():
            module.eval()
            yield
    finally:
        module.train(was_training)


def attends_to_future_tokens(hf_model: PreTrainedModel) -> bool:
    """Return whether a change of the last of eight tokens changes earlier predictions."""
    ids = probe_ids(hf_model, 8)
    other = torch.cat([ids[:, :-1], ids[:, :1]], dim=1)
    with eval_mode(hf_model):
        logits = hf_model(**model_arguments(hf_model, ids)).logits
        changed = hf_model(**model_arguments(hf_model, other)).logits
    return not is_close(changed[:, :-1], logits[:, :-1])


def leaks_between_documents(hf_model: PreTrainedModel) -> bool:
    """Return whether a document is predicted differently when another precedes it in its row."""
    ids = probe_ids(hf_model, 16)
    positions = torch.arange(16, device=ids.device)[None] % 8
    with eval_mode(hf_model):
        packed = hf_model(**model_arguments(hf_model, ids, positions)).logits[:, 8:]
        alone = hf_model(**model_arguments(hf_model, ids[:, 8:])).logits
    return not is_close(packed, alone)


def has_dropout(hf_model: PreTrainedModel) -> bool:
    """Return whether a model draws random numbers in train mode, as dropout does.

    Its outputs do not show it: an adapter with zero weights hides the dropout of its input.
    """
    ids = probe_ids(hf_model, 8)
    accelerated = ids.device.type != "cpu"
    device = torch.get_device_module(ids.device) if accelerated else torch
    was_training = hf_model.training
    with torch.random.fork_rng([ids.device] if accelerated else [], device_type=ids.device.type):
        before = device.get_rng_state()
        try:
            with torch.no_grad():
                hf_model.train()(**model_arguments(hf_model, ids))
        finally:
            hf_model.train(was_training)
        return not torch.equal(device.get_rng_state(), before)


def is_close(actual: Tensor, expected: Tensor) -> bool:
    """Return whether logits or hidden states agree up to rounding, relative to their spread."""
    scale = expected.float().std().clamp(min=1e-6)
    tolerance = 1e-3 if expected.dtype in (torch.float32, torch.float64) else 0.1
    return bool((actual.float() - expected.float()).abs().max() <= tolerance * scale)


@cache
def _takes_positions(forward: Callable[..., object]) -> bool:
    return "position_ids" in inspect.signature(forward).parameters
