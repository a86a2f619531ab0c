"""WaveBound: keep the loss of each token above the loss of an averaged model."""

import torch
from torch import Tensor

from regularizers.base import Regularizer, Requirements
from regularizers.curricula import Curriculum, as_curriculum, require_probability
from regularizers.outputs import Outputs, TokenLoss
from regularizers.training_step import TrainingStep


def wave_bound(loss: Tensor, teacher_loss: Tensor, epsilon: float) -> Tensor:
    """Reflect losses at a bound, just below the losses of a teacher.

    Args:
        loss: Losses of any shape.
        teacher_loss: Losses of the teacher, same shape.
        epsilon: Distance of the bound below the teacher's loss.

    Returns:
        Same shape: the loss itself above the bound; below it, the loss reflected at the bound,
        which reverses its gradient.

    >>> wave_bound(torch.tensor([3.0, 1.0]), torch.tensor([2.5, 2.5]), 0.5)
    tensor([3., 3.])
    """
    bound = teacher_loss - epsilon
    return (loss - bound).abs() + bound


class WaveBound(Regularizer):
    """Keep the loss of each token above the loss of a teacher with averaged weights.

    The weights of the teacher are the moving average of the model's weights, so it learns more
    slowly. Where a loss is below the bound, its gradient is reversed. No token is then learned
    further than the teacher has learned it:

        L'_t = (1 − s)·L_t + s·(|L_t − b_t| + b_t),   b_t = L̄_t − ε

    The original method bounds single outputs of time-series models; here it bounds the loss L_t of
    each token. The teacher's L̄_t is its −ln p on the clean tokens, in eval mode. The interpolation
    by s is an addition of this project.

    Source:
        Cho et al. 2022, arXiv 2210.14303, section 4.2.

    Args:
        curriculum: Strength s in [0, 1], over training; a number is constant.
        epsilon: Distance ε of the bound below the teacher's loss, in nats.
        decay: Decay of the teacher's weights per optimizer step, in [0, 1). For a run of n steps,
            use at most about 1 − 10/n; otherwise the teacher, and with it the model, lags behind.

    Raises:
        ValueError: If a setting is out of range.

    >>> WaveBound().requirements.teacher
    0.99
    """

    def __init__(
        self,
        curriculum: Curriculum | float = 1.0,
        epsilon: float = 0.01,
        decay: float = 0.99,
    ) -> None:
        super().__init__()
        self.curriculum = as_curriculum(curriculum)
        require_probability("WaveBound curriculum", self.curriculum)
        if not 0 <= epsilon < float("inf"):
            raise ValueError(f"WaveBound epsilon: expected a number of at least 0, got {epsilon}")
        if not 0 <= decay < 1:
            raise ValueError(f"WaveBound decay: expected a number in [0, 1), got {decay}")
        self.epsilon = epsilon
        self.decay = decay

    @property
    def requirements(self) -> Requirements:
        """A teacher."""
        return Requirements(teacher=self.decay)

    def on_token_loss(
        self, token_loss: TokenLoss, outputs: Outputs, step: TrainingStep
    ) -> TokenLoss:
        """Reflect losses below the bound."""
        strength = self.curriculum(step.progress)
        assert step.teacher is not None
        teacher_loss = step.teacher().nll.detach()
        bounded = wave_bound(token_loss.loss, teacher_loss, self.epsilon)
        below = step.valid & (token_loss.loss < teacher_loss - self.epsilon)
        step.log("below_bound", below.sum() / step.valid.sum().clamp(min=1))
        return TokenLoss(torch.lerp(token_loss.loss, bounded, strength), token_loss.weight)
