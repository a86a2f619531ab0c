"""Logits of a linear head for a slice of rows, and the gradients of its tensors.

N tokens, D hidden dimensions, V vocabulary size, R rank of a LoRA adapter.
"""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import torch
from torch import Tensor


class LinearHead(NamedTuple):
    """A linear head and its input; any floating dtypes.

    Args:
        hidden: Hidden states ``[N, D]``.
        weight: Weight ``[V, D]``.
        bias: Bias ``[V]``, added to the logits.
        lora: Input ``[N, R]`` and weight ``[V, R]`` of an adapter, whose product is added.
        softcap: Soft cap: logits become ``softcap · tanh(logits / softcap)``.
    """

    hidden: Tensor
    weight: Tensor
    bias: Tensor | None = None
    lora: tuple[Tensor, Tensor] | None = None
    softcap: float | None = None

    @property
    def tensors(self) -> tuple[Tensor | None, ...]:
        """The tensors that may need a gradient, in the order that :class:`Logits` expects."""
        return (self.bias, self.hidden, self.weight, *(self.lora or ()))


class Logits:
    """Logits of a :class:`LinearHead`: Σ ``input @ weight.T`` over pairs, plus a bias, capped."""

    def __init__(
        self, tensors: Sequence[Tensor | None], softcap: float | None, dtype: torch.dtype
    ) -> None:
        bias, *pairs = tensors
        self.originals = tensors
        # A bias of −∞ excludes a token; it is clamped because 0 · ∞ is NaN.
        self.bias = None if bias is None else bias.to(dtype).clamp(min=torch.finfo(dtype).min / 4)
        self.inputs = [tensor.to(dtype) for tensor in pairs[::2] if tensor is not None]
        self.weights = [tensor.to(dtype) for tensor in pairs[1::2] if tensor is not None]
        self.softcap = softcap
        self.wide_dtype = torch.promote_types(dtype, torch.float32)
        self.count = len(self.inputs[0])

    def new_chunk(self, size: int) -> Tensor:
        """Allocate memory for the logits of ``size`` tokens."""
        return self.inputs[0].new_empty(size, len(self.weights[0]))

    def uncapped(self, rows: slice, out: Tensor) -> Tensor:
        """Compute the logits of a slice of rows before the cap, ``[C, V]``."""
        torch.mm(self.inputs[0][rows], self.weights[0].T, out=out)
        for more, weight in zip(self.inputs[1:], self.weights[1:], strict=True):
            add_product(out, more[rows], weight.T)
        return out if self.bias is None else out.add_(self.bias)

    def cap(self, logits: Tensor, damped: bool) -> Tensor | None:
        """Apply the soft cap, if any, in place, and return its derivative if ``damped``."""
        if self.softcap is None:
            return None
        ratio, damping = logits.div_(self.softcap).tanh_(), None
        if damped:
            damping = ratio.to(self.wide_dtype, copy=True).square_().neg_().add_(1)
        ratio.mul_(self.softcap)
        return damping


class GradientSums:
    """Gradients of bias, inputs and weights, summed over chunks; None for those not needed."""

    def __init__(self, logits: Logits, needed: Sequence[bool], chunk_size: int) -> None:
        self.logits = logits
        several = logits.count > chunk_size
        # Inputs have odd indices, and each of their rows belongs to one chunk only.
        self.totals = [
            _zeros(tensor, several and place % 2 == 0) if need and tensor is not None else None
            for place, (tensor, need) in enumerate(zip(logits.originals, needed, strict=True))
        ]

    def add(self, rows: slice, slope: Tensor) -> None:
        """Add the contribution of a slice of rows, given the gradient of their logits."""
        bias, *pairs = self.totals
        if bias is not None:
            bias += slope.sum(0, dtype=bias.dtype)
        for total, weight in zip(pairs[::2], self.logits.weights, strict=True):
            if total is not None:
                total[rows] = slope @ weight
        for total, hidden in zip(pairs[1::2], self.logits.inputs, strict=True):
            if total is not None:
                add_product(total, slope.T, hidden[rows])

    def results(self) -> list[Tensor | None]:
        """Return the sums, each in the dtype of its tensor."""
        return [
            None if total is None or tensor is None else total.to(tensor.dtype)
            for total, tensor in zip(self.totals, self.logits.originals, strict=True)
        ]


def add_product(total: Tensor, left: Tensor, right: Tensor) -> None:
    """Add ``left @ right`` to a sum in place, in the precision of the sum."""
    if total.dtype == left.dtype:
        torch.addmm(total, left, right, out=total)
    else:
        total += left @ right


def slices(start: int, stop: int, size: int) -> Iterator[slice]:
    """Split the rows from ``start`` to ``stop`` into slices of at most ``size``.

    >>> list(slices(0, 5, 3))
    [slice(0, 3, None), slice(3, 5, None)]
    """
    for first in range(start, stop, max(size, 1)):
        yield slice(first, min(first + size, stop))


def _zeros(tensor: Tensor, several: bool) -> Tensor:
    # A 16-bit sum would be rounded after each chunk.
    dtype = torch.promote_types(tensor.dtype, torch.float32) if several else tensor.dtype
    return torch.zeros_like(tensor, dtype=dtype)
