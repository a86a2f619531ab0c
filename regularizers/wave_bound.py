"""WaveBound: the loss of a token is kept above that of an averaged model."""

import torch
from torch import Tensor

from regularizers.base import Regularizer, Requirements
from regularizers.curricula import Curriculum, as_curriculum, require_probability
from regularizers.outputs import Outputs, TokenLoss
from regularizers.training_step import TrainingStep


def wave_bound(loss: Tensor, teacher_loss: Tensor, epsilon: float) -> Tensor:
    """Reflect losses at a bound, just below the losses of a teacher.

    Args:
        loss: of any shape.
        teacher_loss: of the same shape.
        epsilon: by how much the bound is below it.

    Returns:
        Of the same shape: the loss itself above the bound; below it as far above the bound, so
        that its gradient is reversed.

    >>> wave_bound(torch.tensor([3.0, 1.0]), torch.tensor([2.5, 2.5]), 0.5)
    tensor([3., 3.])
    """
    bound = teacher_loss - epsilon
    return (loss - bound).abs() + bound


class WaveBound(Regularizer):
    """Keep the loss of each token above that of a teacher, which averages the weights.

    Below the bound the gradient is reversed, so that no token is learned further than the slower
    teacher, whose weights are the moving average of the model's, has learned it:

        L'_t = (1 − s)·L_t + s·(|L_t − b_t| + b_t),   b_t = L̄_t − ε

    The method bounds single outputs of time-series models; here, the loss L_t of each token. The
    teacher's L̄_t is its −ln p on the clean tokens, in eval mode. The interpolation by s is ours.

    Source:
        Cho et al. 2022, arXiv 2210.14303, section 4.2.

    Args:
        curriculum: s in [0, 1], over training; a number is constant.
        epsilon: ε, nats, by how much the bound is below the teacher's loss.
        decay: of the teacher's weights per optimizer step, in [0, 1); for a run of n steps at most
            about 1 − 10/n, else the teacher, and with it the model, stays behind.

    Raises:
        ValueError: if a setting is out of range.

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
        """Reflect the losses that are below the bound."""
        strength = self.curriculum(step.progress)
        assert step.teacher is not None
        teacher_loss = step.teacher().nll.detach()
        bounded = wave_bound(token_loss.loss, teacher_loss, self.epsilon)
        below = step.valid & (token_loss.loss < teacher_loss - self.epsilon)
        step.log("below_bound", below.sum() / step.valid.sum().clamp(min=1))
        return TokenLoss(torch.lerp(token_loss.loss, bounded, strength), token_loss.weight)
