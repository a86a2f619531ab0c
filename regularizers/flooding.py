"""Flooding: below a level the training loss is driven up again."""

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
    """Mirror a loss at the level if the loss of the whole batch lies below it.

    If ``loss`` is itself that of the whole, this is ``|L − b| + b``. The weighted mean of the parts
    of a batch is that of the whole, as all are mirrored or none is.

    Args:
        loss: scalar, the mean of a part of the batch.
        whole: scalar, the mean of the whole batch, without gradient.
        level: b.

    Returns:
        A scalar.

    >>> flooded_loss(torch.tensor(1.0), torch.tensor(1.0), 1.5)
    tensor(2.)
    """
    return torch.where(whole < level, 2 * level - loss, loss)


def mean_over_ranks(loss: Tensor, step: TrainingStep) -> Tensor:
    """Average the mean losses of all ranks, each by its number of tokens with a label.

    Args:
        loss: scalar, that of this rank.
        step: the step.

    Returns:
        A scalar without gradient, the same on all ranks; 0 if no token of any rank has a label.

    >>> from regularizers.testing import make_step
    >>> mean_over_ranks(torch.tensor(2.0), make_step())
    tensor(2.)
    """
    count = step.valid.sum().to(loss.dtype)
    sums = step.gather(torch.stack([loss.detach() * count, count])[None]).sum(0)
    return sums[0] / sums[1].clamp(min=1)


class Flooding(Regularizer):
    """Keep the training loss from falling below a level.

    Where the mean loss of a micro-batch is below the level b, the gradient turns round, so that
    training walks about near the level rather than on to zero:

        L̃ = |L − b| + b

    By default b is the lowest validation loss so far, so that the training loss cannot fall far
    below what generalises. Nothing is flooded before there are two: the first is often that of the
    model before training, which would keep it there. A strength s between 0
    and 1 mixes both losses, L + s·(L̃ − L): the gradient below the level is that of (1 − 2s)·L.

    L is the mean over the micro-batches of all ranks, as what matters is the sign for the whole:
    each rank counts by its tokens with a label, even if other regularizers weigh these. Different
    accumulation means a different L. What regularizers that are named before this one add to the
    loss is part of L; put penalties after it.

    Source:
        Ishida et al. 2020, arXiv 2002.08709, section 3.

    Args:
        curriculum: strength s in [0, 1], over training; a number is constant.
        level: b in nats; None means the lowest ``val/loss`` of two evaluations or more.

    Raises:
        ValueError: if a setting is out of range.

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
        return Requirements(evaluations=self.level is None)

    def check(self, vocabulary: Vocabulary, others: Sequence[Regularizer]) -> None:
        """Refuse a second bound of the loss, which would turn the gradient back again."""
        for other in others:
            if isinstance(other, Flooding | WaveBound):
                raise ValueError(
                    f"Flooding: expected no second lower bound of the loss, got "
                    f"{type(other).__name__} beside it, and where both act the gradient would not "
                    "turn round at all: take one of them"
                )

    def on_evaluation(self, metrics: Mapping[str, float]) -> None:
        """Remember the lowest validation loss."""
        super().on_evaluation(metrics)
        self._lowest = min(self._lowest, metrics.get("val/loss", math.inf))
        self._evaluations += "val/loss" in metrics

    def on_loss(self, loss: Tensor, outputs: Outputs, step: TrainingStep) -> Tensor:
        """Mirror the mean loss at the level if that of all ranks is below."""
        level = self._lowest if self.level is None else self.level
        if self.level is None and (self._evaluations < 2 or math.isinf(level)):
            return loss
        whole = mean_over_ranks(loss, step)
        step.log("flooded", (whole < level).float())
        return loss.lerp(flooded_loss(loss, whole, level), self.curriculum(step.progress))
