"""Generalized cross-entropy: reduce the gradient of unlikely labels, which may be noise."""

from dataclasses import replace

from torch import Tensor

from regularizers.base import Regularizer, Requirements
from regularizers.curricula import Curriculum, as_curriculum, require_probability
from regularizers.outputs import Outputs, TokenLoss
from regularizers.training_step import TrainingStep


def saturated_loss(loss: Tensor, q: float) -> Tensor:
    """Compute (1 − exp(−q·loss)) / q, which never exceeds 1/q.

    Args:
        loss: Losses of any shape, in nats.
        q: Exponent in [0, 1]; 0 returns the loss unchanged.

    Returns:
        Same shape.

    >>> import torch
    >>> saturated_loss(torch.tensor([0.0, 2.0]), 0.5)
    tensor([0.0000, 1.2642])
    """
    return loss if q == 0 else -(-q * loss).expm1() / q


class GeneralizedCrossEntropy(Regularizer):
    """Reduce the gradient of tokens with unlikely labels; with q = 1, DFT.

    The loss of a token interpolates between cross-entropy (q → 0) and the mean absolute error (q =
    1). It is bounded where a label is unlikely, and is thus robust to noise:

        L_q = (1 − p_t^q) / q

    The gradient is the gradient of cross-entropy times p_t^q, so training is slower too; this is
    the opposite of the focal loss. The paper uses q = 0.7 for ten and a hundred classes. Over a
    vocabulary, most labels are unlikely at first. With such a q, the model hardly learns, and the
    validation loss of the quickstart rises.

    With q = 1, the gradient is that of Dynamic Fine-Tuning (DFT), p_t times that of cross-entropy.
    With ``ReferenceKL`` after it, it is Anchored Supervised Fine-Tuning (ASFT). Both are meant for
    models that already give most labels a high probability. If other regularizers changed the loss
    ℓ before, the result is (1 − exp(−q·ℓ)) / q.

    Source:
        Zhang and Sabuncu 2018, arXiv 1805.07836, equation 6. DFT: arXiv 2508.05629; ASFT: arXiv
        2509.23753.

    Args:
        curriculum: Exponent q in [0, 1], over training; a number is constant.

    Raises:
        ValueError: If q is outside [0, 1].

    >>> GeneralizedCrossEntropy().curriculum(0.5)
    0.1
    """

    def __init__(self, curriculum: Curriculum | float = 0.1) -> None:
        super().__init__()
        self.curriculum = as_curriculum(curriculum)
        require_probability("GeneralizedCrossEntropy curriculum", self.curriculum)

    @property
    def requirements(self) -> Requirements:
        """Nothing; the loss of a token depends on its own outputs."""
        return Requirements(reads="token")

    def on_token_loss(
        self, token_loss: TokenLoss, outputs: Outputs, step: TrainingStep
    ) -> TokenLoss:
        """Bound the loss of each token."""
        return replace(
            token_loss, loss=saturated_loss(token_loss.loss, self.curriculum(step.progress))
        )
