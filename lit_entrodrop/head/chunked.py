"""Linear head, cross-entropy and entropy over chunks of tokens, never holding all logits.

N tokens, D hidden dimensions, V words, R ranks of a LoRA adapter.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from lit_entrodrop.head.rows import (
    RowGradients,
    RowKernel,
    RowStatistics,
    blank_statistics,
    block_rows,
)


@dataclass(frozen=True)
class HeadSettings:
    """What both passes of :mod:`lit_entrodrop.head.autograd` share.

    Args:
        kernel: evaluates rows of logits.
        chunk_size: tokens per chunk.
        compute_dtype: of the matrix products.
        softcap: logits become ``softcap · tanh(logits / softcap)``.
        label_smoothing: share ε of the loss that goes to all words evenly.
        z_loss: factor ζ of logsumexp².
        entropy_gradient: whether gradients flow into the entropy.
        needs_gradient: whether a backward pass may follow.
    """

    kernel: RowKernel
    chunk_size: int
    compute_dtype: torch.dtype
    softcap: float | None
    label_smoothing: float
    z_loss: float
    entropy_gradient: bool
    needs_gradient: bool


class ChunkedHead:
    """The logits of chunks of tokens: Σ over pairs of ``input @ weight.T``, plus a bias."""

    def __init__(
        self, settings: HeadSettings, labels: Tensor, bias: Tensor | None, pairs: tuple[Tensor, ...]
    ) -> None:
        dtype = settings.compute_dtype
        self.settings = settings
        self.labels = labels
        self.originals = (bias, *pairs)
        # An impossible word has a bias of −∞, of which 0 · ∞ would make NaN.
        self.bias = None if bias is None else bias.to(dtype).clamp(min=torch.finfo(dtype).min / 4)
        self.inputs = [tensor.to(dtype) for tensor in pairs[::2]]
        self.weights = [tensor.to(dtype) for tensor in pairs[1::2]]
        self.statistics_dtype = torch.promote_types(dtype, torch.float32)

    def statistics(self, sums: "GradientSums | None" = None) -> RowStatistics:
        """Evaluate all rows, and add up their gradients if asked to."""
        size = min(self.settings.chunk_size, len(self.labels))
        # Fresh memory for every chunk would cost as much as the arithmetic on it.
        buffer = self.inputs[0].new_empty(size, len(self.weights[0]))
        self.block_size = self._block_size(buffer)
        self.scratch = self.settings.kernel.scratch(buffer[: self.block_size])
        whole = blank_statistics(len(self.labels), self.statistics_dtype, self.labels.device)
        for rows in _slices(0, len(self.labels), size):
            logits = self._logits(rows, buffer[: rows.stop - rows.start])
            self._evaluate(rows, logits, whole, sums)
            if sums is not None:
                sums.add(rows, slope=logits)
        return whole

    def _logits(self, rows: slice, logits: Tensor) -> Tensor:
        torch.mm(self.inputs[0][rows], self.weights[0].T, out=logits)
        for more, weight in zip(self.inputs[1:], self.weights[1:], strict=True):
            add_product(logits, more[rows], weight.T)
        return logits if self.bias is None else logits.add_(self.bias)

    def _evaluate(
        self, rows: slice, logits: Tensor, whole: RowStatistics, sums: "GradientSums | None"
    ) -> None:
        """Fill in the statistics of a chunk, block by block; with sums, leave its slope behind.

        The slope is the gradient with respect to the logits before the soft cap.
        """
        kernel = self.settings.kernel
        for block in _slices(rows.start, rows.stop, self.block_size):
            part = logits[block.start - rows.start : block.stop - rows.start]
            damping = self._cap(part, damped=sums is not None)
            statistics, state = kernel.evaluate(part, self.labels[block], self.scratch)
            # To keep those of each block would pin the memory between them.
            for total, value in zip(whole, statistics, strict=True):
                total[block] = value
            if sums is not None:
                gradients = sums.differentiate(block, statistics)
                slope = kernel.slope(state, self.labels[block], statistics, gradients)
                part.copy_(slope if damping is None else slope.mul_(damping))

    def _block_size(self, chunk: Tensor) -> int:
        # What is not done in place needs memory for one block, not for the chunk.
        in_place = self.settings.kernel.IN_PLACE and self.settings.softcap is None
        return len(chunk) if in_place else block_rows(chunk)

    def _cap(self, logits: Tensor, damped: bool) -> Tensor | None:
        """Cap logits in place, and return the derivative of that."""
        if (cap := self.settings.softcap) is None:
            return None
        ratio, damping = logits.div_(cap).tanh_(), None
        if damped:
            damping = ratio.to(self.statistics_dtype, copy=True).square_().neg_().add_(1)
        ratio.mul_(cap)
        return damping


class GradientSums:
    """Gradients of bias, inputs and weights, summed over chunks; None where nobody needs one.

    Args:
        head: whose gradients.
        needed: of which of its tensors.
        differentiate: maps rows and their statistics to the gradients of these.
    """

    def __init__(
        self,
        head: ChunkedHead,
        needed: tuple[bool, ...],
        differentiate: Callable[[slice, RowStatistics], RowGradients],
    ) -> None:
        self.head = head
        self.differentiate = differentiate
        several = len(head.labels) > head.settings.chunk_size
        # Inputs have odd places, and each of their rows belongs to one chunk.
        self.totals = [
            zero_sum(tensor, several and place % 2 == 0) if need and tensor is not None else None
            for place, (tensor, need) in enumerate(zip(head.originals, needed, strict=True))
        ]

    def add(self, rows: slice, slope: Tensor) -> None:
        """Add what some rows contribute, of which the slope is ``[C, V]``."""
        bias, *pairs = self.totals
        if bias is not None:
            bias += slope.sum(0, dtype=bias.dtype)
        for total, weight in zip(pairs[::2], self.head.weights, strict=True):
            if total is not None:
                total[rows] = slope @ weight
        for total, hidden in zip(pairs[1::2], self.head.inputs, strict=True):
            if total is not None:
                add_product(total, slope.T, hidden[rows])

    def results(self) -> list[Tensor | None]:
        """Return the sums, each in the dtype of what it belongs to."""
        return in_own_dtypes(self.totals, self.head.originals)


def zero_sum(tensor: Tensor, several: bool) -> Tensor:
    """Return zeros to which gradients of a tensor are added; at least fp32 if there are several.

    A sum in 16 bits would be rounded at each chunk.
    """
    dtype = torch.promote_types(tensor.dtype, torch.float32) if several else tensor.dtype
    return torch.zeros_like(tensor, dtype=dtype)


def in_own_dtypes(
    totals: Iterable[Tensor | None], tensors: Iterable[Tensor | None]
) -> list[Tensor | None]:
    """Return sums of gradients, each in the dtype of the tensor that it belongs to."""
    return [
        None if total is None or tensor is None else total.to(tensor.dtype)
        for total, tensor in zip(totals, tensors, strict=True)
    ]


def add_product(total: Tensor, left: Tensor, right: Tensor) -> None:
    """Add ``left @ right`` to a sum, in place, in the precision of the sum."""
    if total.dtype == left.dtype:
        torch.addmm(total, left, right, out=total)
    else:
        total += left @ right


def _slices(start: int, stop: int, size: int) -> Iterator[slice]:
    for first in range(start, stop, max(size, 1)):
        yield slice(first, min(first + size, stop))
