"""Label smoothing: spread a fraction of the label's probability over the vocabulary."""

from dataclasses import replace

from torch import Tensor

from regularizers.base import Regularizer, Requirements
from regularizers.curricula import Curriculum, as_curriculum, require_probability
from regularizers.outputs import Outputs, TokenLoss
from regularizers.training_step import TrainingStep


def smoothed_loss(loss: Tensor, logsumexp: Tensor, mean_logit: Tensor, epsilon: float) -> Tensor:
    """Mix a loss with the cross-entropy to the uniform distribution.

    Args:
        loss: Cross-entropy to the label, any shape, in nats.
        logsumexp: Same shape, ln Σ_v exp z_v.
        mean_logit: Same shape, Σ_v z_v / V; −Σ_v ln p_v / V is the difference of both.
        epsilon: Fraction of the uniform distribution, in [0, 1].

    Returns:
        Same shape.

    >>> import torch
    >>> logits = torch.tensor([2.0, 0.0])
    >>> partition = logits.logsumexp(0)
    >>> smoothed_loss(partition - logits[0], partition, logits.mean(), 0.5)
    tensor(0.6269)
    """
    return loss.lerp(logsumexp - mean_logit, epsilon)


class LabelSmoothing(Regularizer):
    """Mix the target with the uniform distribution.

    A fraction ε of the target's probability is spread evenly over the vocabulary of size V, so that
    no logit has to grow without bound:

        L = (1 − ε) · (−ln p_t) − ε · Σ_v ln p_v / V

    The second term is the log-partition minus the mean logit. The fused head computes both, without
    a ``[B, T, V]`` tensor.

    Source:
        Szegedy et al. 2016, arXiv 1512.00567, section 7.

    Args:
        curriculum: Fraction ε of the uniform distribution, over training; a number is constant.

    Raises:
        ValueError: If ε is outside [0, 1].

    >>> LabelSmoothing().curriculum(0.5)
    0.1
    """

    def __init__(self, curriculum: Curriculum | float = 0.1) -> None:
        super().__init__()
        self.curriculum = as_curriculum(curriculum)
        require_probability("LabelSmoothing curriculum", self.curriculum)

    @property
    def requirements(self) -> Requirements:
        """Nothing; the loss of a token depends on its own outputs."""
        return Requirements(reads="token")

    def on_token_loss(
        self, token_loss: TokenLoss, outputs: Outputs, step: TrainingStep
    ) -> TokenLoss:
        """Smooth the loss of each token that has a label."""
        loss = smoothed_loss(
            token_loss.loss,
            outputs.logsumexp,
            outputs.mean_logit,
            self.curriculum(step.progress),
        )
        return replace(token_loss, loss=loss.masked_fill(~step.valid, 0.0))
