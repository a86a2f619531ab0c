"""Cross-entropy and entropy over chunks of tokens.

N tokens, D hidden dimensions, V vocabulary size, C tokens in a chunk.
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
    """Settings of a pass through the chunked head.

    Args:
        kernel: Kernel that evaluates rows of logits.
        chunk_size: Number of tokens per chunk.
        compute_dtype: Dtype of the matrix products.
        softcap: Soft cap: logits become ``softcap · tanh(logits / softcap)``; None for no cap.
        entropy_gradient: Whether the entropy has a gradient.
        needs_gradient: Whether a backward pass may follow.
    """

    kernel: RowKernel
    chunk_size: int
    compute_dtype: torch.dtype
    softcap: float | None

    entropy_gradient: bool
    needs_gradient: bool


class ChunkedHead:
    """Statistics of all tokens, computed chunk by chunk."""

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
        """Return accumulators for the gradients of the tensors that need one."""
        return GradientSums(self.logits, needed, self.settings.chunk_size)

    def statistics(
        self,
        sums: GradientSums | None = None,
        differentiate: Callable[[slice, RowStatistics], RowGradients] | None = None,
    ) -> RowStatistics:
        """Evaluate all rows.

        Args:
            sums: Accumulators of the gradients; None to compute no gradients.
            differentiate: Function that maps a slice of rows and their statistics to the gradients
                of the objective with respect to these statistics.
        """
        differentiate = None if sums is None else differentiate
        size = min(self.settings.chunk_size, len(self.labels))
        # Allocating memory for every chunk would cost as much as its arithmetic.
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
        """Write the statistics of a chunk into ``whole``, block by block.

        With ``differentiate``, the gradient with respect to the logits before the soft cap replaces
        the logits in ``chunk``.
        """
        kernel = self.settings.kernel
        for block in slices(rows.start, rows.stop, self._block_size(chunk)):
            part = chunk[block.start - rows.start : block.stop - rows.start]
            damping = self.logits.cap(part, damped=differentiate is not None)
            statistics, state = kernel.evaluate(part, self.labels[block], scratch)
            # Keeping the tensors of each block would fragment memory.
            for total, value in zip(whole, statistics, strict=True):
                total[block] = value
            if differentiate is not None:
                gradients = differentiate(block, statistics)
                slope = kernel.slope(state, self.labels[block], statistics, gradients)
                part.copy_(slope if damping is None else slope.mul_(damping))

    def _block_size(self, chunk: Tensor) -> int:
        # Out-of-place operations then need memory for one block instead of the chunk.
        in_place = self.settings.kernel.IN_PLACE and self.settings.softcap is None
        return len(chunk) if in_place else block_rows(chunk)
