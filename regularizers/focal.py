"""Focal loss: reduce the loss of tokens that are predicted well."""

from dataclasses import replace

import torch
from torch import Tensor

from regularizers.base import Regularizer, Requirements
from regularizers.curricula import Curriculum, as_curriculum
from regularizers.outputs import Outputs, TokenLoss
from regularizers.training_step import TrainingStep


def focal_factor(nll: Tensor, gamma: float) -> Tensor:
    """Return (1 − p)^γ of each token, with gradient.

    Args:
        nll: Losses −ln p of any shape, in nats.
        gamma: Exponent γ, at least 0; 0 gives ones.

    Returns:
        Same shape, in [0, 1].

    >>> focal_factor(torch.tensor(0.5).log().neg(), 2.0)
    tensor(0.2500)
    """
    # For γ < 1 the slope is infinite at p = 1, which rounding may even exceed.
    missing = (-torch.expm1(-nll)).clamp(min=torch.finfo(nll.dtype).tiny)
    return missing.pow(gamma)


class Focal(Regularizer):
    """Reduce the loss of tokens that are predicted well.

    The loss of each token is scaled by a power of the probability of all other tokens. The gradient
    flows through this factor too:

        L = −(1 − p_t)^γ · ln p_t

    γ = 0 is cross-entropy. The mean is over all tokens with a label, so the loss is smaller than in
    plain training.

    Source:
        Lin et al. 2017, arXiv 1708.02002, equation 4.

    Args:
        curriculum: Exponent γ, over training; a number is constant.

    >>> Focal().curriculum(0.5)
    2.0
    """

    def __init__(self, curriculum: Curriculum | float = 2.0) -> None:
        super().__init__()
        self.curriculum = as_curriculum(curriculum)

    @property
    def requirements(self) -> Requirements:
        """Nothing; the loss of a token depends on its own outputs."""
        return Requirements(reads="token")

    def on_token_loss(
        self, token_loss: TokenLoss, outputs: Outputs, step: TrainingStep
    ) -> TokenLoss:
        """Scale the loss of each token."""
        factor = focal_factor(outputs.nll, self.curriculum(step.progress))
        return replace(token_loss, loss=factor * token_loss.loss)
