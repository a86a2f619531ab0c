"""What autograd sees of the chunked head: gradients in the forward pass, or logits computed twice.

N tokens, D hidden dimensions, V words.
"""

from collections.abc import Callable
from functools import wraps
from typing import Any

import torch
from torch import Tensor

from lit_entrodrop.model.head.chunked import ChunkedHead, HeadSettings
from lit_entrodrop.model.head.torch_kernel import RowGradients, RowStatistics
from regularizers.functional import IGNORE_INDEX


def first_order(backward: Callable[..., Any]) -> Callable[..., Any]:
    """Let a backward pass refuse ``create_graph=True``.

    Torch's ``once_differentiable`` lets pass what has a constant incoming gradient, as every loss
    has, and so would leave this head out of a penalty on gradients without a word.

    Raises:
        RuntimeError: in that case.
    """

    @wraps(backward)
    def refusing(ctx: Any, *upstream: Tensor | None) -> Any:
        if torch.is_grad_enabled():
            raise RuntimeError(
                "head: expected create_graph=False, as the fused head has no second derivative; "
                "differentiate the logits themselves instead (head 'naive')"
            )
        return backward(ctx, *upstream)

    return refusing


class WeightedLoss(torch.autograd.Function):
    """Σ w·loss and the statistics; gradients are computed in the forward pass: 6NDV operations.

    Differentiable once: a backward pass with ``create_graph=True`` raises a RuntimeError.
    """

    @staticmethod
    def forward(
        ctx: Any,
        settings: HeadSettings,
        labels: Tensor,
        token_weight: Tensor,
        *tensors: Tensor | None,
    ) -> tuple[Tensor, ...]:
        """Return the weighted loss and the five statistics."""
        head = ChunkedHead(settings, labels, tensors)
        token_weight = counted_weight(token_weight, labels, head.logits.wide_dtype)

        def differentiate(rows: slice, statistics: RowStatistics) -> RowGradients:
            return RowGradients(token_weight[rows])

        sums = None
        if settings.needs_gradient:
            sums = head.gradient_sums(ctx.needs_input_grad[3:])
        statistics = head.statistics(sums, differentiate)
        ctx.mark_non_differentiable(*statistics)
        ctx.save_for_backward(*(sums.results() if sums is not None else ()))
        return (token_weight * statistics.nll).sum(), *statistics

    @staticmethod
    @first_order
    def backward(ctx: Any, *upstream: Tensor) -> tuple[Tensor | None, ...]:
        """Scale the gradients; in place, so that a second backward pass is refused by torch."""
        gradients = [
            None if gradient is None else gradient.mul_(upstream[0])
            for gradient in ctx.saved_tensors
        ]
        return None, None, None, *gradients


class TokenStatistics(torch.autograd.Function):
    """The statistics with gradient; logits are computed again in the backward pass: 8NDV.

    Differentiable once: a backward pass with ``create_graph=True`` raises a RuntimeError.
    """

    @staticmethod
    def forward(
        ctx: Any, settings: HeadSettings, labels: Tensor, *tensors: Tensor | None
    ) -> tuple[Tensor, ...]:
        """Return the five statistics."""
        statistics = ChunkedHead(settings, labels, tensors).statistics()
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(labels, *tensors)
        ctx.settings = settings
        ctx.mark_non_differentiable(statistics.correct)
        if not settings.entropy_gradient:
            ctx.mark_non_differentiable(statistics.entropy)
        return tuple(statistics)

    @staticmethod
    @first_order
    def backward(ctx: Any, *upstream: Tensor | None) -> tuple[Tensor | None, ...]:
        """Compute the logits of each chunk once more."""
        labels, *tensors = ctx.saved_tensors

        def differentiate(rows: slice, statistics: RowStatistics) -> RowGradients:
            nll, entropy, logsumexp, mean_logit = (
                None if gradient is None else gradient[rows] for gradient in upstream[:4]
            )
            nll = torch.zeros_like(statistics.nll) if nll is None else nll
            return RowGradients(nll, logsumexp, mean_logit, entropy)

        with torch.autocast(labels.device.type, enabled=False):
            head = ChunkedHead(ctx.settings, labels, tensors)
            sums = head.gradient_sums(ctx.needs_input_grad[2:])
            head.statistics(sums, differentiate)
        return None, None, *sums.results()


def counted_weight(token_weight: Tensor, labels: Tensor, dtype: torch.dtype) -> Tensor:
    """Return token weights without gradient, 0 where the label is ignored.

    >>> counted_weight(torch.tensor([torch.nan, 2.0]), torch.tensor([-100, 5]), torch.float32)
    tensor([0., 2.])
    """
    # A factor of 0 would let through what is NaN.
    return token_weight.detach().to(dtype).masked_fill(labels == IGNORE_INDEX, 0.0)
