"""Losses whose gradients the chunked head can compute in its forward pass.

N tokens, C tokens in a block.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from lit_entrodrop.model.head.torch_kernel import RowGradients, RowStatistics
from regularizers.functional import IGNORE_INDEX


class HeadOutputs(NamedTuple):
    """Statistics of each token; fp32 (fp64 for fp64 inputs).

    Args:
        nll: ``[N]``, −ln p(label); 0 where the label is -100.
        entropy: ``[N]`` nats, over the full vocabulary; also computed for ignored labels.
        logsumexp: ``[N]``, ln Σ_v exp z_v.
        mean_logit: ``[N]``, Σ_v z_v / V.
        correct: ``[N]`` bool, whether no token has a higher logit than the label.
        weighted_loss: Scalar, Σ token_weight·nll or the sum of the objective; None without either.
        top_entropy: ``[N]`` nats, entropy among the ``top_k`` most likely tokens, renormalized,
            without gradient; None unless requested.
    """

    nll: Tensor
    entropy: Tensor
    logsumexp: Tensor
    mean_logit: Tensor
    correct: Tensor
    weighted_loss: Tensor | None = None
    top_entropy: Tensor | None = None


# Maps a slice of the tokens and their outputs to a scalar, which is summed over slices.
Objective = Callable[[slice, HeadOutputs], Tensor]


class Loss(Protocol):
    """A scalar function of the statistics of all tokens, a sum over tokens."""

    def differentiate(self, rows: slice, statistics: RowStatistics) -> RowGradients:
        """Return the gradient with respect to the statistics of a slice of rows."""

    def total(self, statistics: RowStatistics) -> Tensor:
        """Return the loss, given the statistics of all rows."""


class WeightedLoss:
    """Σ w·nll.

    Args:
        token_weight: Weights ``[N]``.
        labels: Labels ``[N]`` int64.
        dtype: Dtype of the statistics.
    """

    def __init__(self, token_weight: Tensor, labels: Tensor, dtype: torch.dtype) -> None:
        self.token_weight = counted_weight(token_weight, labels, dtype)

    def differentiate(self, rows: slice, statistics: RowStatistics) -> RowGradients:
        """Return the weights of the rows."""
        return RowGradients(self.token_weight[rows])

    def total(self, statistics: RowStatistics) -> Tensor:
        """Return the weighted sum."""
        return (self.token_weight * statistics.nll).sum()


class ObjectiveLoss:
    """The sum of an objective, differentiated by autograd on the statistics of each block.

    Args:
        objective: Differentiable function of the statistics.
        entropy_gradient: Whether the entropy has a gradient.
        top_entropy: Memory ``[N]`` of entropies among the most likely tokens, which the head fills.
    """

    def __init__(
        self, objective: Objective, entropy_gradient: bool, top_entropy: Tensor | None
    ) -> None:
        self.objective = objective
        self.top_entropy = top_entropy
        self._differentiable = [True, entropy_gradient, True, True, False]
        self._sum: Tensor | None = None

    def differentiate(self, rows: slice, statistics: RowStatistics) -> RowGradients:
        """Evaluate the objective on a slice of rows."""
        leaves = [
            each.detach().requires_grad_(needed)
            for each, needed in zip(statistics, self._differentiable, strict=True)
        ]
        with torch.enable_grad():
            value = self.objective(rows, self._outputs(rows, leaves))
        self._sum = value.detach() if self._sum is None else self._sum + value.detach()
        nll, entropy, logsumexp, mean_logit, _ = gradients_of(value, leaves)
        nll = torch.zeros_like(statistics.nll) if nll is None else nll
        return RowGradients(nll, logsumexp, mean_logit, entropy)

    def total(self, statistics: RowStatistics) -> Tensor:
        """Return the sum over all blocks, which is evaluated at once if there was none."""
        if self._sum is not None:
            return self._sum
        rows = slice(0, len(statistics.nll))
        return self.objective(rows, self._outputs(rows, statistics))

    def _outputs(self, rows: slice, statistics: Sequence[Tensor]) -> HeadOutputs:
        top_entropy = None if self.top_entropy is None else self.top_entropy[rows]
        return HeadOutputs(*statistics)._replace(top_entropy=top_entropy)


def gradients_of(value: Tensor, leaves: Sequence[Tensor]) -> list[Tensor | None]:
    """Return the gradient of a scalar with respect to each leaf; None if there is none.

    >>> leaf = torch.ones(2, requires_grad=True)
    >>> gradients_of((3 * leaf).sum(), [leaf, torch.ones(2)])
    [tensor([3., 3.]), None]
    """
    needed = [leaf for leaf in leaves if leaf.requires_grad]
    if not (needed and value.requires_grad):
        return [None] * len(leaves)
    found = iter(torch.autograd.grad(value, needed, allow_unused=True))
    return [next(found) if leaf.requires_grad else None for leaf in leaves]


def counted_weight(token_weight: Tensor, labels: Tensor, dtype: torch.dtype) -> Tensor:
    """Return token weights without gradient, 0 where the label is ignored.

    >>> counted_weight(torch.tensor([torch.nan, 2.0]), torch.tensor([-100, 5]), torch.float32)
    tensor([0., 2.])
    """
    # NaN · 0 is NaN, so the weights are filled.
    return token_weight.detach().to(dtype).masked_fill(labels == IGNORE_INDEX, 0.0)
