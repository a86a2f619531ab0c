"""Z-loss: keep log-partitions near zero."""

from torch import Tensor

from regularizers.base import Regularizer, Requirements
from regularizers.curricula import Curriculum, as_curriculum
from regularizers.functional import masked_mean
from regularizers.outputs import Outputs
from regularizers.training_step import TrainingStep


def z_penalty(logsumexp: Tensor, valid: Tensor, factor: float) -> Tensor:
    """Return a factor times the mean squared log-partition, a scalar.

    Args:
        logsumexp: Log-partitions ``[B, T]``, ln Σ_v exp z_v.
        valid: Mask ``[B, T]`` bool of the tokens that count.
        factor: Factor c.

    >>> import torch
    >>> z_penalty(torch.tensor([[3.0, 1.0]]), torch.ones(1, 2, dtype=torch.bool), 0.1)
    tensor(0.5000)
    """
    return factor * masked_mean(logsumexp.square(), valid)


class ZLoss(Regularizer):
    """Penalize the squared log-partition.

    Adding a constant to all logits does not change the loss. The penalty keeps them from drifting,
    which matters in low precision:

        L = mean(−ln p_t) + c · mean((ln Z_t)²),  Z_t = Σ_v exp z_v

    The mean square is over all tokens with a label, independent of their weights.

    Source:
        Chowdhery et al. 2022 (PaLM), arXiv 2204.02311, section 5.

    Args:
        curriculum: Factor c, over training; a number is constant.

    >>> ZLoss().curriculum(0.5)
    0.0001
    """

    def __init__(self, curriculum: Curriculum | float = 1e-4) -> None:
        super().__init__()
        self.curriculum = as_curriculum(curriculum)

    @property
    def requirements(self) -> Requirements:
        """Nothing; the penalty of a token depends on its own outputs."""
        return Requirements(reads="token")

    def on_loss(self, loss: Tensor, outputs: Outputs, step: TrainingStep) -> Tensor:
        """Add the penalty."""
        penalty = z_penalty(outputs.logsumexp, step.valid, self.curriculum(step.progress))
        step.log("penalty", penalty)
        return loss + penalty
