"""R-Drop: make the predictions of two passes under dropout agree."""

from dataclasses import replace

from torch import Tensor

from regularizers.base import Regularizer, Requirements
from regularizers.curricula import Curriculum, as_curriculum
from regularizers.functional import masked_mean
from regularizers.outputs import Outputs, TokenLoss
from regularizers.training_step import TrainingStep


def symmetric_kl(first: Outputs, second: Outputs) -> Tensor:
    """Compute ½ (KL(p ‖ q) + KL(q ‖ p)) of each token, in nats.

    Args:
        first: Outputs of one pass.
        second: Outputs of another pass over the same tokens.

    Returns:
        ``[B, T]`` fp32, 0 where nothing predicts the token; both sides get gradients.

    >>> import torch
    >>> ids = torch.tensor([[0, 1]])
    >>> passes = [
    ...     Outputs.from_logits(logits, ids, torch.zeros_like(ids))
    ...     for logits in (torch.zeros(1, 2, 4), torch.tensor([[[1.0, 0, 0, 0]] * 2]))
    ... ]
    >>> symmetric_kl(*passes)
    tensor([[0.0000, 0.1127]])
    """
    forth, back = first.kl_divergences(second)
    return (forth + back) / 2


class RDrop(Regularizer):
    """Make the predictions of two passes under dropout agree.

    Each step runs the model twice on the same input. Dropout makes the predictions p and q of a
    token differ. The loss of a token is:

        ℓ = ½ (−ln p(x_t) − ln q(x_t)) + α·½ (KL(p ‖ q) + KL(q ‖ p))

    as in the authors' published code, in which both terms are means over the two passes. The
    paper's equation sums the losses of both passes instead, so its α is twice this one. Tokens have
    the same weights in the divergence as in the loss. Other regularizers draw the same random
    numbers in both passes. A step takes about twice as long; at strength 0 the second pass is
    skipped, because its loss has the same expectation.

    Source:
        Liang et al. 2021, arXiv 2106.14448, section 2.1.

    Args:
        curriculum: Factor α of the divergence, over training; a number is constant.

    Raises:
        ValueError: If the factor is negative or not finite.

    >>> RDrop().requirements.dropout
    True
    """

    def __init__(self, curriculum: Curriculum | float = 1.0) -> None:
        super().__init__()
        self.curriculum = as_curriculum(curriculum)

    @property
    def requirements(self) -> Requirements:
        """A second pass, dropout inside the model, and divergences."""
        return Requirements(second_forward=True, dropout=True, divergence=True, reads="token")

    def on_token_loss(
        self, token_loss: TokenLoss, outputs: Outputs, step: TrainingStep
    ) -> TokenLoss:
        """Average the losses of both passes and add their divergence."""
        strength = self.curriculum(step.progress)
        if strength == 0:
            return token_loss
        assert step.second_forward is not None, "Regularizers refuses a step without it"
        second = step.second_forward()
        divergence = symmetric_kl(outputs, second).masked_fill(~step.valid, 0.0)
        step.log("divergence", masked_mean(divergence, step.valid))
        halfway = (second.nll - outputs.nll) / 2
        return replace(token_loss, loss=token_loss.loss + halfway + strength * divergence)
