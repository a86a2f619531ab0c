"""Kullback-Leibler divergence between two heads' predictions, over chunks of tokens.

N tokens, V words.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from lit_entrodrop.head.autograd import first_order
from lit_entrodrop.head.linear import check_chunk_size, check_head, default_chunk_size
from lit_entrodrop.head.logits import GradientSums, LinearHead, Logits, slices
from lit_entrodrop.head.rows import sizing_device
from regularizers.functional import kl_divergence


@torch.compiler.disable  # type: ignore[untyped-decorator]
def linear_kl(own: LinearHead, other: LinearHead, chunk_size: int | None = None) -> Tensor:
    """Compute KL(p ‖ q) = Σ_v p_v (ln p_v − ln q_v) of each token, without holding all logits.

    p is the softmax of ``own`` and q that of ``other``. Both sides get gradients; detach the one
    that should get none. Logits are computed once more in the backward pass, which refuses
    ``create_graph=True``: there is no second derivative.

    Serves R-Drop (Liang et al. 2021, arXiv 2106.14448, eq. 2: both directions of two passes over
    one head) and distillation from a frozen model.

    Args:
        own: N tokens and V words; its logits are computed in the dtype of its hidden states.
        other: as many tokens and words; hidden dimensions may differ.
        chunk_size: tokens per chunk.

    Returns:
        ``[N]`` nats, fp32 (fp64 for fp64 inputs).

    Raises:
        ValueError: if shapes do not fit, or chunk_size is no integer above 0.
        RuntimeError: in the backward pass, if ``create_graph`` is set.

    >>> same = LinearHead(torch.ones(2, 3), torch.eye(3))
    >>> linear_kl(same, same)
    tensor([0., 0.])
    """
    for head in (own, other):
        check_head("linear_kl", head)
    sizes = [(len(head.hidden), len(head.weight)) for head in (own, other)]
    if sizes[0] != sizes[1]:
        raise ValueError(f"linear_kl: expected as many tokens and words of both, got {sizes}")
    check_chunk_size(chunk_size)
    device = own.hidden.device.type
    autocast = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else None
    sides = [
        _Side(each.softcap, autocast or each.hidden.dtype, len(each.tensors))
        for each in (own, other)
    ]
    chunk_size = chunk_size or default_chunk_size(2 * len(own.weight), sizing_device(own.hidden))
    with torch.autocast(device, enabled=False):
        return _LinearKL.apply(sides, chunk_size, *own.tensors, *other.tensors)  # type: ignore[no-any-return, no-untyped-call]


class _Side(NamedTuple):
    """What a :class:`Logits` needs besides its tensors, and how many these are."""

    softcap: float | None
    dtype: torch.dtype
    size: int


class _LinearKL(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, sides: Sequence[_Side], size: int, *tensors: Tensor | None) -> Tensor:
        ctx.save_for_backward(*tensors)
        ctx.sides, ctx.chunk_size = sides, size
        own, other = _logits(sides, tensors)
        divergence = own.inputs[0].new_empty(own.count, dtype=own.wide_dtype)
        for rows in slices(0, own.count, size):
            log_p, log_q = (_log_softmax(logits, rows)[0] for logits in (own, other))
            divergence[rows] = _divergence(log_p, log_q)
        return divergence

    @staticmethod
    @first_order
    def backward(ctx: Any, *upstream: Tensor) -> tuple[Tensor | None, ...]:
        with torch.autocast(upstream[0].device.type, enabled=False):
            own, other = _logits(ctx.sides, ctx.saved_tensors)
            needed = _split(ctx.sides, ctx.needs_input_grad[2:])
            sums = [
                GradientSums(logits, own_needed, ctx.chunk_size)
                for logits, own_needed in zip((own, other), needed, strict=True)
            ]
            for rows in slices(0, own.count, ctx.chunk_size):
                (log_p, damping), (log_q, other_damping) = (
                    _log_softmax(logits, rows, damped=True) for logits in (own, other)
                )
                p, scale = log_p.exp(), upstream[0][rows, None]
                # ∂KL/∂z_p = p (ln p − ln q − KL),  ∂KL/∂z_q = q − p
                excess = log_p - log_q - _divergence(log_p, log_q)[:, None]
                _add(sums[0], rows, p * excess * scale, damping)
                _add(sums[1], rows, (log_q.exp() - p) * scale, other_damping)
        return None, None, *sums[0].results(), *sums[1].results()


def _split(sides: Sequence[_Side], both: Sequence[Any]) -> tuple[Sequence[Any], Sequence[Any]]:
    return both[: sides[0].size], both[sides[0].size :]


def _logits(sides: Sequence[_Side], tensors: Sequence[Tensor | None]) -> list[Logits]:
    return [
        Logits(own, side.softcap, side.dtype)
        for side, own in zip(sides, _split(sides, tensors), strict=True)
    ]


def _log_softmax(logits: Logits, rows: slice, damped: bool = False) -> tuple[Tensor, Tensor | None]:
    """Return log-probabilities, and the derivative of the cap."""
    chunk = logits.uncapped(rows, out=logits.new_chunk(rows.stop - rows.start))
    damping = logits.cap(chunk, damped)
    return chunk.to(logits.wide_dtype).log_softmax(-1), damping


def _add(sums: GradientSums, rows: slice, slope: Tensor, damping: Tensor | None) -> None:
    slope = slope if damping is None else slope * damping
    sums.add(rows, slope.to(sums.logits.weights[0].dtype))


def _divergence(log_p: Tensor, log_q: Tensor) -> Tensor:
    return kl_divergence(log_p, log_q).clamp(min=0.0)
