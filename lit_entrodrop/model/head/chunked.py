"""Cross-entropy and entropy over chunks of tokens, never holding all logits.

N tokens, D hidden dimensions, V words, C tokens in a chunk.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from lit_entrodrop.model.head.logits import GradientSums, Logits, slices
from lit_entrodrop.model.head.torch_kernel import (
    RowGradients,
    RowKernel,
    RowStatistics,
    blank_statistics,
    block_rows,
)


@dataclass(frozen=True)
class HeadSettings:
    """What both passes of :mod:`lit_entrodrop.model.head.autograd` share.

    Args:
        kernel: evaluates rows of logits.
        chunk_size: tokens per chunk.
        compute_dtype: of the matrix products.
        softcap: logits become ``softcap · tanh(logits / softcap)``.

        entropy_gradient: whether gradients flow into the entropy.
        needs_gradient: whether a backward pass may follow.
    """

    kernel: RowKernel
    chunk_size: int
    compute_dtype: torch.dtype
    softcap: float | None

    entropy_gradient: bool
    needs_gradient: bool


class ChunkedHead:
    """Statistics of all tokens, chunk by chunk."""

    def __init__(
        self,
        settings: HeadSettings,
        labels: Tensor,
        tensors: Sequence[Tensor | None],
    ) -> None:
        self.settings = settings
        self.labels = labels
        self.logits = Logits(tensors, settings.softcap, settings.compute_dtype)

    def gradient_sums(self, needed: Sequence[bool]) -> GradientSums:
        """Return sums for the gradients of those tensors that need one."""
        return GradientSums(self.logits, needed, self.settings.chunk_size)

    def statistics(
        self,
        sums: GradientSums | None = None,
        differentiate: Callable[[slice, RowStatistics], RowGradients] | None = None,
    ) -> RowStatistics:
        """Evaluate all rows.

        Args:
            sums: to which the gradients of the rows are added, if given.
            differentiate: maps rows and their statistics to the gradients of these, for the sums.
        """
        differentiate = None if sums is None else differentiate
        size = min(self.settings.chunk_size, len(self.labels))
        # Fresh memory for every chunk would cost as much as the arithmetic on it.
        buffer = self.logits.new_chunk(size)
        scratch = self.settings.kernel.scratch(buffer[: self._block_size(buffer)])
        whole = blank_statistics(len(self.labels), self.logits.wide_dtype, self.labels.device)
        for rows in slices(0, len(self.labels), size):
            chunk = self.logits.uncapped(rows, out=buffer[: rows.stop - rows.start])
            self._evaluate(rows, chunk, scratch, whole, differentiate)
            if sums is not None:
                sums.add(rows, slope=chunk)
        return whole

    def _evaluate(
        self,
        rows: slice,
        chunk: Tensor,
        scratch: list[Tensor],
        whole: RowStatistics,
        differentiate: Callable[[slice, RowStatistics], RowGradients] | None,
    ) -> None:
        """Fill in the statistics of a chunk, block by block; if asked to, leave its slope behind.

        The slope is the gradient with respect to the logits before the soft cap.
        """
        kernel = self.settings.kernel
        for block in slices(rows.start, rows.stop, self._block_size(chunk)):
            part = chunk[block.start - rows.start : block.stop - rows.start]
            damping = self.logits.cap(part, damped=differentiate is not None)
            statistics, state = kernel.evaluate(part, self.labels[block], scratch)
            # To keep those of each block would pin the memory between them.
            for total, value in zip(whole, statistics, strict=True):
                total[block] = value
            if differentiate is not None:
                gradients = differentiate(block, statistics)
                slope = kernel.slope(state, self.labels[block], statistics, gradients)
                part.copy_(slope if damping is None else slope.mul_(damping))

    def _block_size(self, chunk: Tensor) -> int:
        # What is not done in place needs memory for one block, not for the chunk.
        in_place = self.settings.kernel.IN_PLACE and self.settings.softcap is None
        return len(chunk) if in_place else block_rows(chunk)
