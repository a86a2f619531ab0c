"""WaveBound: keep the loss of a batch above the loss of an averaged model."""

from collections.abc import Sequence

import torch
from torch import Tensor

from regularizers.base import Regularizer, Requirements
from regularizers.curricula import Curriculum, as_curriculum, require_probability
from regularizers.outputs import Outputs, TokenLoss
from regularizers.training_step import TrainingStep, Vocabulary


def wave_bound(loss: Tensor, teacher_loss: Tensor, excess: Tensor, epsilon: float) -> Tensor:
    """Reflect the losses of a batch at a bound, just below the losses of a teacher, all or none.

    Args:
        loss: Losses of any shape.
        teacher_loss: Losses of the teacher, same shape.
        excess: Scalar, the mean of ``loss − teacher_loss`` over the whole batch, without gradient.
        epsilon: Distance ε of the bound below the teacher's loss.

    Returns:
        Same shape: the losses themselves if ``excess`` is at least −ε. Otherwise each loss is
        reflected at its bound, which reverses the gradient; the mean L of the batch becomes
        ``|L − b| + b``, with the mean bound b.

    >>> loss, teacher_loss = torch.tensor([3.0, 1.0]), torch.tensor([2.5, 2.5])
    >>> wave_bound(loss, teacher_loss, (loss - teacher_loss).mean(), 0.1)
    tensor([1.8000, 3.8000])
    """
    return torch.where(excess < -epsilon, 2 * (teacher_loss - epsilon) - loss, loss)


class WaveBound(Regularizer):
    """Keep the mean loss of a batch above that of a teacher with averaged weights.

    The weights of the teacher are the moving average of the model's weights, so it learns more
    slowly. If the mean loss L of a micro-batch is below the bound, its gradient is reversed. The
    batch is then not learned further than the teacher has learned it:

        L' = (1 − s)·L + s·(|L − b| + b),   b = L̄ − ε

    The original method bounds each output of a time-series model, on average over the mini-batch.
    Tokens have no counterpart of these outputs, so the mean is over all tokens of the micro-batch,
    on all ranks, with their weights. It depends on gradient accumulation: each micro-batch has a
    bound of its own. The loss of the teacher, L̄, is its mean −ln p on the clean tokens. The teacher
    is in train mode, as in the authors' code, so dropout inside the model affects both losses.
    The interpolation by s is an addition of this project.

    If one step lowers L by more than ε, the next ones are reversed until the teacher has followed.
    In fast training, the bound thus holds the model back. The authors start after 300 steps; a
    ``warmup`` of the curriculum delays the bound.

    Source:
        Cho et al. 2022, arXiv 2210.14303, section 4.2; mean and teacher as in the authors' code.

    Args:
        curriculum: Strength s in [0, 1], over training; a number is constant.
        epsilon: Distance ε of the bound below the teacher's loss, in nats.
        decay: Decay of the teacher's weights per optimizer step, in [0, 1).

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
        return Requirements(teacher=self.decay, reads="loss")

    def check(self, vocabulary: Vocabulary, others: Sequence[Regularizer]) -> None:
        """Reject a second bound, which would reverse the gradient again."""
        if any(isinstance(other, WaveBound) for other in others):
            raise ValueError("WaveBound: expected one WaveBound, got two: remove one")

    def on_token_loss(
        self, token_loss: TokenLoss, outputs: Outputs, step: TrainingStep
    ) -> TokenLoss:
        """Reflect the losses if their mean is below the bound."""
        strength = self.curriculum(step.progress)
        assert step.teacher is not None
        loss, weight = token_loss.loss, token_loss.weight
        teacher_loss = step.teacher().nll.detach()
        excess = step.mean_over_ranks((weight * (loss - teacher_loss)).sum(), weight.sum())
        step.log("below_bound", (excess < -self.epsilon).float())
        bounded = wave_bound(loss, teacher_loss, excess, self.epsilon).where(step.valid, 0.0)
        return TokenLoss(torch.lerp(loss, bounded, strength), weight)
