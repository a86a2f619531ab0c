"""Confidence penalty: penalize predictions of low entropy."""

from torch import Tensor

from regularizers.base import Regularizer, Requirements
from regularizers.curricula import Curriculum, as_curriculum
from regularizers.functional import masked_mean
from regularizers.outputs import Outputs
from regularizers.training_step import TrainingStep


def confidence_penalty(entropy: Tensor, valid: Tensor, beta: float) -> Tensor:
    """Return −β times the mean entropy, a scalar.

    Args:
        entropy: Entropies ``[B, T]`` in nats, with gradient; ignored where not valid.
        valid: Mask ``[B, T]`` bool of the tokens that count.
        beta: Factor β.

    >>> import torch
    >>> entropy = torch.tensor([[torch.nan, 1.0, 3.0]])
    >>> confidence_penalty(entropy, ~entropy.isnan(), 0.1)
    tensor(-0.2000)
    """
    return -beta * masked_mean(entropy, valid)


class ConfidencePenalty(Regularizer):
    """Penalize predictions of low entropy.

    The entropy of the model's own prediction, with gradient, is subtracted from the loss:

        L = mean(−ln p_t) − β · mean(H_t),  H_t = −Σ_v p_v ln p_v

    The mean entropy is over all tokens with a label, independent of their weights.

    The default β is the weakest of the paper's grids. There, the best β is 2.0 for language models
    trained from scratch (Penn Treebank), 2.5 for translation and 0.1 for CIFAR-10.

    Source:
        Pereyra et al. 2017, arXiv 1701.06548, section 3; values of β from section 4.

    Args:
        curriculum: Factor β of the entropy, over training; a number is constant.

    >>> ConfidencePenalty().curriculum(0.5)
    0.1
    """

    def __init__(self, curriculum: Curriculum | float = 0.1) -> None:
        super().__init__()
        self.curriculum = as_curriculum(curriculum)

    @property
    def requirements(self) -> Requirements:
        """Gradients through the entropies."""
        return Requirements(entropy_gradient=True, reads="token")

    def on_loss(self, loss: Tensor, outputs: Outputs, step: TrainingStep) -> Tensor:
        """Add the penalty."""
        penalty = confidence_penalty(outputs.entropy, step.valid, self.curriculum(step.progress))
        step.log("penalty", penalty)
        return loss + penalty
