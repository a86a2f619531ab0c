"""Logits of two heads for the same tokens, block by block, and their divergences.

N tokens, C tokens in a block, V vocabulary size.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor

from lit_entrodrop.model.head.linear import check_chunk_size, check_head, default_chunk_size
from lit_entrodrop.model.head.logits import GradientSums, LinearHead, Logits, slices
from lit_entrodrop.model.head.torch_kernel import block_rows, sizing_device


class Side(NamedTuple):
    """Settings of one head, and its number of tensors."""

    softcap: float | None
    dtype: torch.dtype
    size: int


class Settings(NamedTuple):
    """Settings of a pass through two heads."""

    sides: Sequence[Side]
    chunk_size: int


def paired_settings(
    function: str, first: LinearHead, second: LinearHead, chunk_size: int | None
) -> Settings:
    """Check both heads, and return the settings of a pass through them.

    Args:
        function: Name of the function, for errors.
        first: One head.
        second: Another head.
        chunk_size: Number of tokens per chunk; None for half of the default of the head.

    Raises:
        ValueError: If shapes do not fit, or chunk_size is not a positive integer.
    """
    for head in (first, second):
        check_head(function, head)
    sizes = [(len(head.hidden), len(head.weight)) for head in (first, second)]
    if sizes[0] != sizes[1]:
        raise ValueError(
            f"{function}: expected both heads to have the same number of tokens and vocabulary "
            f"size, got {sizes}"
        )
    check_chunk_size(chunk_size)
    device = first.hidden.device.type
    autocast = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else None
    sides = [
        Side(each.softcap, autocast or each.hidden.dtype, len(each.tensors))
        for each in (first, second)
    ]
    # Two chunks are in memory at once.
    default = default_chunk_size(len(first.weight), sizing_device(first.hidden)) // 2
    return Settings(sides, chunk_size or default)


@dataclass(frozen=True)
class PairedBlock:
    """Logits and probabilities of some rows of a chunk."""

    rows: slice  # among all tokens
    parts: Sequence[Tensor]  # logits of both sides, to be replaced by their gradients
    dampings: Sequence[Tensor | None]  # derivatives of the soft caps
    logits: Sequence[Tensor]  # in full precision; may be overwritten
    softmaxes: Sequence[Tensor]  # p and q

    def maxima(self) -> list[tuple[Tensor, Tensor]]:
        """Return m = max z and ln s of each side, ``[C]`` each, with p = e^(z − m) / s."""
        # The most likely token has p = 1 / s, which never underflows.
        return [
            (logits.amax(-1), -softmax.amax(-1).log())
            for logits, softmax in zip(self.logits, self.softmaxes, strict=True)
        ]

    def compare(self, maxima: Sequence[tuple[Tensor, Tensor]]) -> None:
        """Replace the logits by ln p − ln q and ln q − ln p, given the result of :meth:`maxima`."""
        (highest, log_sum), (other_highest, other_log_sum) = maxima
        shift = (highest - other_highest) + (log_sum - other_log_sum)
        ratio, opposite = self.logits
        torch.neg(ratio.sub_(opposite).sub_(shift[:, None]), out=opposite)

    def slope(
        self,
        side: int,
        divergences: Sequence[Tensor],
        upstream: Sequence[Tensor | None],
        factor: Tensor | float = 0.0,
    ) -> Tensor:
        """Return the gradient with respect to the logits of a side; call it after :meth:`compare`.

        ∂KL(p ‖ q)/∂z_p = p (ln p − ln q − KL),  ∂KL(q ‖ p)/∂z_p = p − q.

        Args:
            side: Side, 0 or 1.
            divergences: Both divergences of the rows, ``[C]`` each.
            upstream: Gradient of each divergence, ``[C]``; None is zero.
            factor: Factor of p that is added to the gradient, ``[C, 1]``.
        """
        along, across = (
            None if each is None else each[:, None] for each in (upstream[side], upstream[1 - side])
        )
        own, other, out = self.softmaxes[side], self.softmaxes[1 - side], self.logits[side]
        if across is not None:
            factor = factor + across
        if along is None:
            slope = torch.mul(own, factor, out=out)
        else:
            slope = out.sub_(divergences[side][:, None]).mul_(along).add_(factor).mul_(own)
        return slope if across is None else slope.addcmul_(other, across, value=-1)

    def store_gradient(self, side: int, slope: Tensor) -> None:
        """Replace the logits of a side by their gradient before the soft cap."""
        damping = self.dampings[side]
        self.parts[side].copy_(slope if damping is None else slope.mul_(damping))


class PairedLogits:
    """Logits of both sides, block by block, in reused memory."""

    def __init__(
        self, settings: Settings, tensors: Sequence[Tensor | None], objective: bool = False
    ) -> None:
        sides = settings.sides
        self.logits = [
            Logits(own, side.softcap, side.dtype)
            for side, own in zip(sides, split(sides, tensors), strict=True)
        ]
        self.count = self.logits[0].count
        self.chunk_size = min(settings.chunk_size, self.count)
        self.chunks = [each.new_chunk(self.chunk_size) for each in self.logits]
        block = self.chunks[0][: block_rows(self.chunks[0], objective)]
        dtype = torch.promote_types(*(each.wide_dtype for each in self.logits))
        self.softmaxes = [torch.empty_like(block, dtype=dtype) for _ in sides]
        self.wide = [
            None if chunk.dtype == dtype else torch.empty_like(block, dtype=dtype)
            for chunk in self.chunks
        ]

    @property
    def shared(self) -> list[int]:
        """Indices of the biases and weights that both sides share; inputs have odd indices."""
        pairs = zip(*(each.originals for each in self.logits), strict=False)
        return [
            place
            for place, (one, two) in enumerate(pairs)
            if place % 2 == 0 and one is not None and one is two
        ]

    def gradient_sums(self, own: Sequence[bool], other: Sequence[bool]) -> list[GradientSums]:
        """Return accumulators for the tensors of both sides that need a gradient.

        Shared tensors have one accumulator.
        """
        alone = [need and place not in self.shared for place, need in enumerate(other)]
        sums = [
            GradientSums(logits, needed, self.chunk_size)
            for logits, needed in zip(self.logits, (own, alone), strict=True)
        ]
        for place in self.shared:
            sums[1].totals[place] = sums[0].totals[place]
        return sums

    def blocks(self, rows: slice, damped: bool = False) -> Iterator[PairedBlock]:
        """Compute the logits of a chunk of rows, and yield its blocks."""
        chunks = [
            logits.uncapped(rows, out=chunk[: rows.stop - rows.start])
            for logits, chunk in zip(self.logits, self.chunks, strict=True)
        ]
        for block in slices(rows.start, rows.stop, len(self.softmaxes[0])):
            parts = [chunk[block.start - rows.start : block.stop - rows.start] for chunk in chunks]
            dampings = [
                logits.cap(part, damped) for logits, part in zip(self.logits, parts, strict=True)
            ]
            wide = [
                part if memory is None else memory[: len(part)].copy_(part)
                for memory, part in zip(self.wide, parts, strict=True)
            ]
            softmaxes = [
                torch.softmax(part, -1, out=memory[: len(part)])
                for memory, part in zip(self.softmaxes, wide, strict=True)
            ]
            yield PairedBlock(block, parts, dampings, wide, softmaxes)


def split(sides: Sequence[Side], both: Sequence[Any]) -> tuple[Sequence[Any], Sequence[Any]]:
    """Return the items of either side."""
    return both[: sides[0].size], both[sides[0].size :]
