"""Self-regularization: stay close to the predictions of the base model."""

from dataclasses import replace

from regularizers.base import Regularizer, Requirements
from regularizers.curricula import Curriculum, as_curriculum
from regularizers.functional import masked_mean
from regularizers.outputs import Outputs, TokenLoss
from regularizers.training_step import TrainingStep


class ReferenceKL(Regularizer):
    """Penalize divergence from the predictions of the base model.

    A frozen reference model, by default the model before training, predicts the same tokens from
    clean input. The divergence of the trained model from its predictions is added to the loss:

        ℓ = −ln p_θ(x_t) + λ·KL(p_base ‖ p_θ)

    This limits forgetting: this direction of the divergence makes the model keep probability on all
    tokens that the base model finds likely. Tokens have the same weights in the divergence as in
    the loss; prompts with ignored labels do not count.

    Source:
        Li et al. 2024, arXiv 2407.08374 (OrthSR); its self-regularization, with the divergence over
        tokens instead of classes.

    Args:
        curriculum: Factor λ of the divergence, over training; a number is constant.

    Raises:
        ValueError: If the factor is negative or not finite.

    >>> ReferenceKL().requirements.reference
    True
    """

    def __init__(self, curriculum: Curriculum | float = 0.1) -> None:
        super().__init__()
        self.curriculum = as_curriculum(curriculum)

    @property
    def requirements(self) -> Requirements:
        """A reference model, and divergences."""
        return Requirements(reference=True, divergence=True, reads="token")

    def on_token_loss(
        self, token_loss: TokenLoss, outputs: Outputs, step: TrainingStep
    ) -> TokenLoss:
        """Add the divergence."""
        strength = self.curriculum(step.progress)
        assert step.reference is not None, "Regularizers refuses a step without it"
        divergence = step.reference().kl_divergence(outputs).masked_fill(~step.valid, 0.0)
        step.log("divergence", masked_mean(divergence, step.valid))
        return replace(token_loss, loss=token_loss.loss + strength * divergence)
