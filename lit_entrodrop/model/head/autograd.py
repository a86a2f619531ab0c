"""Autograd functions of the chunked head.

One computes gradients in the forward pass; the other recomputes the logits in the backward pass.
N tokens, D hidden dimensions, V vocabulary size.
"""

from collections.abc import Callable
from dataclasses import replace
from functools import wraps
from typing import Any

import torch
from torch import Tensor

from lit_entrodrop.model.head.chunked import HeadSettings, evaluate_chunks
from lit_entrodrop.model.head.losses import Loss
from lit_entrodrop.model.head.torch_kernel import RowGradients, RowStatistics


def first_order(backward: Callable[..., Any]) -> Callable[..., Any]:
    """Make a backward pass raise under ``create_graph=True``.

    Torch's ``once_differentiable`` does not raise if the incoming gradient is constant, as it is
    for a loss. A penalty on gradients would then silently ignore this head.
    """

    @wraps(backward)
    def refusing(ctx: Any, *upstream: Tensor | None) -> Any:
        if torch.is_grad_enabled():
            raise RuntimeError(
                "head: expected create_graph=False, because the fused head has no second "
                "derivative: use head 'naive' instead"
            )
        return backward(ctx, *upstream)

    return refusing


class KnownLoss(torch.autograd.Function):
    """A known loss and the statistics, with gradients from the forward pass: 6NDV operations.

    Differentiable once: a backward pass with ``create_graph=True`` raises a RuntimeError.
    """

    @staticmethod
    def forward(
        ctx: Any,
        settings: HeadSettings,
        labels: Tensor,
        loss: Loss,
        *tensors: Tensor | None,
    ) -> tuple[Tensor, ...]:
        """Return the loss and the five statistics."""
        differentiate = loss.differentiate if settings.needs_gradient else None
        statistics, gradients = evaluate_chunks(
            settings, labels, tensors, differentiate, ctx.needs_input_grad[3:]
        )
        ctx.mark_non_differentiable(*statistics)
        ctx.save_for_backward(*gradients)
        return loss.total(statistics), *statistics

    @staticmethod
    def backward(ctx: Any, *upstream: Tensor) -> tuple[Tensor | None, ...]:
        """Scale the gradients."""
        return None, None, None, *scale_gradients(ctx, *upstream)


@first_order
def scale_gradients(ctx: Any, *upstream: Tensor) -> list[Tensor | None]:
    """Scale the saved gradients, in place, so that torch rejects a second backward pass."""
    return [
        None if gradient is None else gradient.mul_(upstream[0]) for gradient in ctx.saved_tensors
    ]


class TokenStatistics(torch.autograd.Function):
    """The statistics with gradients; the backward pass recomputes the logits: 8NDV operations.

    Differentiable once: a backward pass with ``create_graph=True`` raises a RuntimeError.
    """

    @staticmethod
    def forward(
        ctx: Any, settings: HeadSettings, labels: Tensor, *tensors: Tensor | None
    ) -> tuple[Tensor, ...]:
        """Return the five statistics."""
        statistics, _ = evaluate_chunks(settings, labels, tensors)
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(labels, *tensors)
        ctx.settings = replace(settings, top_entropy=None)
        ctx.mark_non_differentiable(statistics.correct)
        if not settings.entropy_gradient:
            ctx.mark_non_differentiable(statistics.entropy)
        return tuple(statistics)

    @staticmethod
    @first_order
    def backward(ctx: Any, *upstream: Tensor | None) -> tuple[Tensor | None, ...]:
        """Recompute the logits of each chunk."""
        labels, *tensors = ctx.saved_tensors

        def differentiate(rows: slice, statistics: RowStatistics) -> RowGradients:
            nll, entropy, logsumexp, mean_logit = (
                None if gradient is None else gradient[rows] for gradient in upstream[:4]
            )
            nll = torch.zeros_like(statistics.nll) if nll is None else nll
            return RowGradients(nll, logsumexp, mean_logit, entropy)

        with torch.autocast(labels.device.type, enabled=False):
            _, gradients = evaluate_chunks(
                ctx.settings, labels, tensors, differentiate, ctx.needs_input_grad[2:]
            )
        return None, None, *gradients
