"""Kullback-Leibler divergence between two heads' predictions, over chunks of tokens.

N tokens, D and E hidden dimensions, V words.
"""

from typing import Any

import torch
from torch import Tensor

from lit_entrodrop.head.autograd import first_order
from lit_entrodrop.head.chunked import add_product, in_own_dtypes, zero_sum
from lit_entrodrop.head.linear import check_chunk_size, check_floating, default_chunk_size


@torch.compiler.disable  # type: ignore[untyped-decorator]
def linear_kl(
    hidden: Tensor,
    weight: Tensor,
    other_hidden: Tensor,
    other_weight: Tensor,
    chunk_size: int | None = None,
) -> Tensor:
    """Compute KL(p ‖ q) = Σ_v p_v (ln p_v − ln q_v) of each token, without holding all logits.

    p = softmax(hidden @ weight.T) and q likewise of the others. Both sides get gradients; detach
    the one that should get none. Logits are computed once more in the backward pass, which refuses
    ``create_graph=True``: there is no second derivative.

    Serves R-Drop (Liang et al. 2021, arXiv 2106.14448, eq. 2: both directions of two passes over
    one head) and distillation from a frozen model.

    Args:
        hidden: ``[N, D]``, any floating dtype, in which its logits are computed.
        weight: ``[V, D]``.
        other_hidden: ``[N, E]``, likewise.
        other_weight: ``[V, E]``.
        chunk_size: tokens per chunk.

    Returns:
        ``[N]`` nats, fp32 (fp64 for fp64 inputs).

    Raises:
        ValueError: if shapes do not fit, or chunk_size is no integer above 0.
        RuntimeError: in the backward pass, if ``create_graph`` is set.

    >>> same = torch.ones(2, 3), torch.eye(3)
    >>> linear_kl(*same, *same)
    tensor([0., 0.])
    """
    _check_shapes(hidden, weight, other_hidden, other_weight)
    check_floating("linear_kl", hidden, weight)
    check_floating("linear_kl", other_hidden, other_weight)
    check_chunk_size(chunk_size)
    device = hidden.device.type
    dtypes = hidden.dtype, other_hidden.dtype
    if torch.is_autocast_enabled(device):
        dtypes = (torch.get_autocast_dtype(device),) * 2
    chunk_size = chunk_size or default_chunk_size(2 * len(weight), hidden.device)
    with torch.autocast(device, enabled=False):
        return _LinearKL.apply(  # type: ignore[no-any-return, no-untyped-call]
            dtypes, chunk_size, hidden, weight, other_hidden, other_weight
        )


def _check_shapes(*heads: Tensor) -> None:
    hidden, weight, other_hidden, other_weight = heads
    fits = all(tensor.ndim == 2 for tensor in heads) and len(weight) > 0
    fits = fits and hidden.shape[1:] == weight.shape[1:]
    fits = fits and other_hidden.shape[1:] == other_weight.shape[1:]
    if not fits or len(hidden) != len(other_hidden) or len(weight) != len(other_weight):
        raise ValueError(
            "linear_kl: expected hidden [N, D], weight [V, D], other_hidden [N, E], "
            f"other_weight [V, E], got {', '.join(str(list(tensor.shape)) for tensor in heads)}"
        )


class _LinearKL(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, dtypes: tuple[torch.dtype, torch.dtype], size: int, *heads: Tensor
    ) -> Tensor:
        ctx.save_for_backward(*heads)
        ctx.dtypes, ctx.chunk_size = dtypes, size
        hidden, weight, other, other_weight = _rounded(heads, dtypes)
        chunks = zip(hidden.split(size), other.split(size), strict=True)
        divergences = [
            _divergence(_log_softmax(one, weight), _log_softmax(two, other_weight))
            for one, two in chunks
        ]
        return torch.cat(divergences)

    @staticmethod
    @first_order
    def backward(ctx: Any, *upstream: Tensor) -> tuple[Tensor | None, ...]:
        heads, size = ctx.saved_tensors, ctx.chunk_size
        several = len(heads[0]) > size
        summed = zip(heads, (False, several) * 2, ctx.needs_input_grad[2:], strict=True)
        sums = [zero_sum(tensor, many) if needed else None for tensor, many, needed in summed]
        with torch.autocast(heads[0].device.type, enabled=False):
            hidden, weight, other, other_weight = _rounded(heads, ctx.dtypes)
            for start in range(0, len(hidden), size):
                rows = slice(start, start + size)
                log_p = _log_softmax(hidden[rows], weight)
                log_q = _log_softmax(other[rows], other_weight)
                p, scale = log_p.exp(), upstream[0][rows, None]
                # ∂KL/∂z_p = p (ln p − ln q − KL),  ∂KL/∂z_q = q − p
                excess = log_p - log_q - _divergence(log_p, log_q)[:, None]
                _add(sums[:2], p * excess * scale, rows, hidden, weight)
                _add(sums[2:], (log_q.exp() - p) * scale, rows, other, other_weight)
        return None, None, *in_own_dtypes(sums, heads)


def _rounded(
    heads: tuple[Tensor, ...], dtypes: tuple[torch.dtype, torch.dtype]
) -> tuple[Tensor, ...]:
    """Return hidden states and weight of each side in the dtype of its products."""
    own, other = dtypes
    return tuple(map(Tensor.to, heads, (own, own, other, other)))


def _add(
    sums: list[Tensor | None], slope: Tensor, rows: slice, hidden: Tensor, weight: Tensor
) -> None:
    slope = slope.to(weight.dtype)
    of_hidden, of_weight = sums
    if of_hidden is not None:
        of_hidden[rows] = slope @ weight
    if of_weight is not None:
        add_product(of_weight, slope.T, hidden[rows])


def _log_softmax(hidden: Tensor, weight: Tensor) -> Tensor:
    logits = hidden @ weight.T
    return (logits if logits.dtype == torch.float64 else logits.float()).log_softmax(-1)


def _divergence(log_p: Tensor, log_q: Tensor) -> Tensor:
    # Words that p excludes contribute nothing, whatever q says.
    terms = log_p.exp() * (log_p - log_q)
    return terms.masked_fill(log_p == -torch.inf, 0.0).sum(-1).clamp(min=0.0)
