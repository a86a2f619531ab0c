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
from regularizers.distributions import top_entropy


@dataclass(frozen=True)
class HeadSettings:
    """Settings of a pass through the chunked head."""

    kernel: RowKernel
    chunk_size: int
    compute_dtype: torch.dtype  # of the matrix products
    softcap: float | None
    entropy_gradient: bool
    needs_gradient: bool
    has_objective: bool = False
    top_k: int = 0
    top_entropy: Tensor | None = None  # memory for the entropies among the top_k, filled by a pass


def evaluate_chunks(
    settings: HeadSettings,
    labels: Tensor,
    tensors: Sequence[Tensor | None],
    differentiate: Callable[[slice, RowStatistics], RowGradients] | None = None,
    needed: Sequence[bool] = (),
) -> tuple[RowStatistics, list[Tensor | None]]:
    """Return the statistics of all tokens, and the gradients of the tensors of the head.

    Args:
        settings: Settings of the pass.
        labels: Labels ``[N]`` int64.
        tensors: Tensors of a :class:`LinearHead`.
        differentiate: Function that maps a slice of rows and their statistics to the gradients of
            the objective with respect to these statistics; None to compute no gradients.
        needed: Whether each tensor needs a gradient.
    """
    kernel = settings.kernel
    logits = Logits(tensors, settings.softcap, settings.compute_dtype)
    sums = None if differentiate is None else GradientSums(logits, needed, settings.chunk_size)
    size = min(settings.chunk_size, logits.count)
    # Allocating memory for every chunk would cost as much as its arithmetic.
    buffer = logits.new_chunk(size)
    # Out-of-place operations need memory for one block instead of the chunk.
    if kernel.IN_PLACE and settings.softcap is None:
        block_size = size
    else:
        block_size = block_rows(buffer, settings.has_objective)
    scratch = kernel.scratch(buffer[:block_size])
    whole = blank_statistics(logits.count, logits.wide_dtype, labels.device)
    for rows in slices(0, logits.count, size):
        chunk = logits.uncapped(rows, out=buffer[: rows.stop - rows.start])
        for block in slices(rows.start, rows.stop, block_size):
            part = chunk[block.start - rows.start : block.stop - rows.start]
            damping = logits.cap(part, damped=differentiate is not None)
            if settings.top_entropy is not None:
                settings.top_entropy[block] = top_entropy(part, settings.top_k)
            statistics, state = kernel.evaluate(part, labels[block], scratch)
            # Keeping the tensors of each block would fragment memory.
            for total, value in zip(whole, statistics, strict=True):
                total[block] = value
            if differentiate is not None:
                gradients = differentiate(block, statistics)
                slope = kernel.slope(state, labels[block], statistics, gradients)
                # The gradient with respect to the logits before the soft cap replaces them.
                part.copy_(slope if damping is None else slope.mul_(damping))
        if sums is not None:
            sums.add(rows, slope=chunk)
    return whole, [] if sums is None else sums.results()
