"""Generalized cross-entropy: surprising tokens pull less, as their labels may be noise."""

from dataclasses import replace

from torch import Tensor

from regularizers.base import Regularizer
from regularizers.curricula import Curriculum, as_curriculum, require_probability
from regularizers.outputs import Outputs, TokenLoss
from regularizers.training_step import TrainingStep


def saturated_loss(loss: Tensor, q: float) -> Tensor:
    """Compute (1 − exp(−q·loss)) / q, which never exceeds 1/q.

    Args:
        loss: any shape, nats.
        q: in [0, 1]; 0 leaves the loss as it is.

    Returns:
        Same shape.

    >>> import torch
    >>> saturated_loss(torch.tensor([0.0, 2.0]), 0.5)
    tensor([0.0000, 1.2642])
    """
    return loss if q == 0 else -(-q * loss).expm1() / q


class GeneralizedCrossEntropy(Regularizer):
    """Let a token pull less, the more surprising its label is.

    The loss of a token lies between cross-entropy (q → 0) and the mean absolute error (q = 1),
    which does not grow without bound where a label is unlikely, and so resists noise:

        L_q = (1 − p_t^q) / q

    The gradient is that of cross-entropy times p_t^q, so that training is slower too; it is the
    opposite of the focal loss. The paper takes q = 0.7 for ten and a hundred classes; over a
    vocabulary, where most labels are unlikely at first, tokens would hardly be learned, and the
    validation loss of the quickstart rises. Where other regularizers have reshaped the loss ℓ
    before, it is (1 − exp(−q·ℓ)) / q.

    Source:
        Zhang and Sabuncu 2018, arXiv 1805.07836, equation 6.

    Args:
        curriculum: exponent q in [0, 1], over training; a number is constant.

    Raises:
        ValueError: if q leaves [0, 1].

    >>> GeneralizedCrossEntropy().curriculum(0.5)
    0.1
    """

    def __init__(self, curriculum: Curriculum | float = 0.1) -> None:
        super().__init__()
        self.curriculum = as_curriculum(curriculum)
        require_probability("GeneralizedCrossEntropy curriculum", self.curriculum)

    def on_token_loss(
        self, token_loss: TokenLoss, outputs: Outputs, step: TrainingStep
    ) -> TokenLoss:
        """Bound the loss of each token."""
        return replace(
            token_loss, loss=saturated_loss(token_loss.loss, self.curriculum(step.progress))
        )
