"""Flooding: keep the training loss above a level."""

import math
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from regularizers.base import Regularizer, Requirements
from regularizers.curricula import Curriculum, as_curriculum, require_probability
from regularizers.outputs import Outputs
from regularizers.training_step import TrainingStep, Vocabulary
from regularizers.wave_bound import WaveBound


def flooded_loss(loss: Tensor, whole: Tensor, level: float) -> Tensor:
    """Reflect a loss at the level if the loss of the whole batch is below it.

    If ``loss`` is the loss of the whole batch, this is ``|L − b| + b``. All parts of a batch are
    reflected or none, so the weighted mean of the parts equals the result for the whole.

    Args:
        loss: Scalar, the mean of a part of the batch.
        whole: Scalar, the mean of the whole batch, without gradient.
        level: Level b.

    Returns:
        A scalar.

    >>> flooded_loss(torch.tensor(1.0), torch.tensor(1.0), 1.5)
    tensor(2.)
    """
    return torch.where(whole < level, 2 * level - loss, loss)


class Flooding(Regularizer):
    """Keep the training loss from falling below a level.

    If the mean loss of a micro-batch is below the level b, the gradient is reversed. The loss then
    fluctuates around the level instead of approaching zero:

        L̃ = |L − b| + b

    By default b is the lowest validation loss so far, so the training loss cannot fall far below
    the loss on new text. Flooding starts after two evaluations: the first is often of the untrained
    model, and its loss as a level would keep the model there. A strength s between 0 and 1 mixes
    both losses, L + s·(L̃ − L). Below the level its gradient is the gradient of (1 − 2s)·L.

    L is the mean over the micro-batches of all ranks, because the sign of the whole batch matters.
    Each rank is weighted by its number of tokens with a label, even if other regularizers weight
    these tokens. L depends on gradient accumulation. L includes what earlier regularizers in the
    list add to the loss; list penalties after Flooding.

    Source:
        Ishida et al. 2020, arXiv 2002.08709, section 3.

    Args:
        curriculum: Strength s in [0, 1], over training; a number is constant.
        level: Level b in nats; None for the lowest ``val/loss`` after at least two evaluations.

    Raises:
        ValueError: If a setting is out of range.

    >>> Flooding(level=0.5).curriculum(0.5)
    1.0
    """

    def __init__(self, curriculum: Curriculum | float = 1.0, level: float | None = None) -> None:
        super().__init__()
        self.curriculum = as_curriculum(curriculum)
        require_probability("Flooding curriculum", self.curriculum)
        if level is not None and not 0 <= level < math.inf:
            raise ValueError(f"Flooding level: expected a finite loss >= 0 or None, got {level}")
        self.level = level
        self._lowest = math.inf
        self._evaluations = 0

    @property
    def requirements(self) -> Requirements:
        """Validation, unless the level is given."""
        return Requirements(evaluations=self.level is None, reads="loss")

    def check(self, vocabulary: Vocabulary, others: Sequence[Regularizer]) -> None:
        """Reject a second lower bound of the loss, which would reverse the gradient again."""
        for other in others:
            if isinstance(other, Flooding | WaveBound):
                raise ValueError(
                    f"Flooding: expected no second lower bound of the loss, got "
                    f"{type(other).__name__}; two bounds would reverse the gradient twice: use "
                    "one of them"
                )

    def on_evaluation(self, metrics: Mapping[str, float]) -> None:
        """Store the lowest validation loss."""
        super().on_evaluation(metrics)
        self._lowest = min(self._lowest, metrics.get("val/loss", math.inf))
        self._evaluations += "val/loss" in metrics

    def on_loss(self, loss: Tensor, outputs: Outputs, step: TrainingStep) -> Tensor:
        """Reflect the mean loss at the level if the mean over all ranks is below it."""
        level = self._lowest if self.level is None else self.level
        if self.level is None and (self._evaluations < 2 or math.isinf(level)):
            return loss
        count = step.valid.sum()
        whole = step.mean_over_ranks(loss * count, count)
        step.log("flooded", (whole < level).float())
        return loss.lerp(flooded_loss(loss, whole, level), self.curriculum(step.progress))
