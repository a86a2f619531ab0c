"""Kullback-Leibler divergence between the predictions of two heads, over chunks of tokens.

N tokens, V vocabulary size.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor

from lit_entrodrop.model.head.autograd import first_order
from lit_entrodrop.model.head.linear import check_chunk_size, check_head, default_chunk_size
from lit_entrodrop.model.head.logits import GradientSums, LinearHead, Logits, slices
from lit_entrodrop.model.head.torch_kernel import block_rows, sizing_device


@torch.compiler.disable  # type: ignore[untyped-decorator]
def linear_kl(
    first: LinearHead, second: LinearHead, chunk_size: int | None = None
) -> tuple[Tensor, Tensor]:
    """Compute KL(p ‖ q) and KL(q ‖ p) of each token, without materializing all logits.

    p is the softmax of ``first``, q of ``second``, and KL(p ‖ q) = Σ_v p_v (ln p_v − ln q_v). Both
    directions share the logits, so the second adds almost no cost. Both sides get gradients;
    detach the side that should get none. The backward pass recomputes the logits and rejects
    ``create_graph=True``: there is no second derivative.

    Used by R-Drop (Liang et al. 2021, arXiv 2106.14448, eq. 2: both directions of two passes over
    one head) and by distillation from a frozen model.

    Args:
        first: Head with N tokens and vocabulary size V. Its logits are computed in the dtype of its
            hidden states.
        second: Head with the same N and V; hidden dimensions may differ.
        chunk_size: Number of tokens per chunk; None for half of the default of the head.

    Returns:
        Two tensors ``[N]`` in nats, fp32 (fp64 for fp64 inputs).

    Raises:
        ValueError: If shapes do not fit, or chunk_size is not a positive integer.
        RuntimeError: In the backward pass, if ``create_graph`` is set.

    >>> one, other = (LinearHead(torch.ones(1, 1), torch.tensor([[0.0], [z]])) for z in (0, 1))
    >>> linear_kl(one, other)
    (tensor([0.1201]), tensor([0.1109]))
    """
    for head in (first, second):
        check_head("linear_kl", head)
    sizes = [(len(head.hidden), len(head.weight)) for head in (first, second)]
    if sizes[0] != sizes[1]:
        raise ValueError(
            "linear_kl: expected both heads to have the same number of tokens and vocabulary "
            f"size, got {sizes}"
        )
    check_chunk_size(chunk_size)
    device = first.hidden.device.type
    autocast = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else None
    sides = [
        _Side(each.softcap, autocast or each.hidden.dtype, len(each.tensors))
        for each in (first, second)
    ]
    # Two chunks are in memory at once.
    default = default_chunk_size(len(first.weight), sizing_device(first.hidden)) // 2
    with torch.autocast(device, enabled=False):
        return _LinearKL.apply(sides, chunk_size or default, *first.tensors, *second.tensors)  # type: ignore[no-any-return, no-untyped-call]


class _Side(NamedTuple):
    """Settings of one head, and its number of tensors."""

    softcap: float | None
    dtype: torch.dtype
    size: int


class _LinearKL(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, sides: Sequence[_Side], size: int, *tensors: Tensor | None
    ) -> tuple[Tensor, ...]:
        ctx.set_materialize_grads(False)
        ctx.sides, ctx.chunk_size = sides, size
        pair = _PairedLogits(sides, tensors, size)
        divergences = tuple(memory.new_empty(pair.count) for memory in pair.softmaxes)
        for chunk in slices(0, pair.count, size):
            for block in pair.blocks(chunk):
                block.compare()
                for total, softmax, ratio in zip(
                    divergences, block.softmaxes, block.logits, strict=True
                ):
                    total[block.rows] = softmax.mul_(ratio).sum(-1).clamp_(min=0.0)
        ctx.save_for_backward(*divergences, *tensors)
        return divergences

    @staticmethod
    @first_order
    def backward(ctx: Any, *upstream: Tensor | None) -> tuple[Tensor | None, ...]:
        divergences, tensors = ctx.saved_tensors[:2], ctx.saved_tensors[2:]
        if all(each is None for each in upstream):
            return (None,) * len(ctx.needs_input_grad)
        needed = _split(ctx.sides, ctx.needs_input_grad[2:])
        with torch.autocast(divergences[0].device.type, enabled=False):
            pair = _PairedLogits(ctx.sides, tensors, ctx.chunk_size)
            sides = [side for side in (0, 1) if any(needed[side])]
            sums = pair.gradient_sums(*needed)
            compared = any(upstream[side] is not None for side in sides)
            for chunk in slices(0, pair.count, ctx.chunk_size):
                for block in pair.blocks(chunk, damped=True):
                    if compared:
                        block.compare()
                    for side in sides:
                        block.store_gradient(side, block.slope(side, divergences, upstream))
                for side in sides:
                    sums[side].add(chunk, pair.chunks[side][: chunk.stop - chunk.start])
            for place in pair.shared:
                # Autograd would add the shared sum twice.
                sums[1].totals[place] = None
        return None, None, *sums[0].results(), *sums[1].results()


@dataclass(frozen=True)
class _Block:
    """Logits and probabilities of some rows of a chunk."""

    rows: slice  # among all tokens
    parts: Sequence[Tensor]  # logits of both sides, to be replaced by their gradients
    dampings: Sequence[Tensor | None]  # derivatives of the soft caps
    logits: Sequence[Tensor]  # in full precision; may be overwritten
    softmaxes: Sequence[Tensor]  # p and q

    def compare(self) -> None:
        """Replace the logits by ln p − ln q and ln q − ln p."""
        highest, likeliest = (
            [each.amax(-1, keepdim=True) for each in both] for both in (self.logits, self.softmaxes)
        )
        # With p = e^(z − m) / s, the most likely token has 1 / s, which never underflows.
        shift = highest[0] - highest[1] - (likeliest[0] / likeliest[1]).log_()
        ratio, opposite = self.logits
        torch.neg(ratio.sub_(opposite).sub_(shift), out=opposite)

    def slope(
        self, side: int, divergences: Sequence[Tensor], upstream: Sequence[Tensor | None]
    ) -> Tensor:
        """Return the gradient with respect to the logits of a side; call it after :meth:`compare`.

        ∂KL(p ‖ q)/∂z_p = p (ln p − ln q − KL),  ∂KL(q ‖ p)/∂z_p = p − q.
        """
        along, across = (
            None if each is None else each[self.rows, None]
            for each in (upstream[side], upstream[1 - side])
        )
        own, other, out = self.softmaxes[side], self.softmaxes[1 - side], self.logits[side]
        if along is None:
            assert across is not None, "one of both has a gradient"
            return torch.sub(own, other, out=out).mul_(across)
        slope = out.sub_(divergences[side][self.rows, None]).mul_(along)
        if across is None:
            return slope.mul_(own)
        return slope.add_(across).mul_(own).addcmul_(other, across, value=-1)

    def store_gradient(self, side: int, slope: Tensor) -> None:
        """Replace the logits of a side by their gradient before the soft cap."""
        damping = self.dampings[side]
        self.parts[side].copy_(slope if damping is None else slope.mul_(damping))


class _PairedLogits:
    """Logits of both sides, block by block, in reused memory."""

    def __init__(
        self, sides: Sequence[_Side], tensors: Sequence[Tensor | None], chunk_size: int
    ) -> None:
        self.logits = [
            Logits(own, side.softcap, side.dtype)
            for side, own in zip(sides, _split(sides, tensors), strict=True)
        ]
        self.count = self.logits[0].count
        self.chunk_size = min(chunk_size, self.count)
        self.chunks = [each.new_chunk(self.chunk_size) for each in self.logits]
        block = self.chunks[0][: block_rows(self.chunks[0])]
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

    def blocks(self, rows: slice, damped: bool = False) -> Iterator[_Block]:
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
            yield _Block(block, parts, dampings, wide, softmaxes)


def _split(sides: Sequence[_Side], both: Sequence[Any]) -> tuple[Sequence[Any], Sequence[Any]]:
    return both[: sides[0].size], both[sides[0].size :]
