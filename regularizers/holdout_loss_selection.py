"""Holdout-loss selection: weigh documents by what similar holdout text tells about them."""

from collections.abc import Callable

import torch
from torch import Tensor

from regularizers.base import Regularizer, Requirements
from regularizers.curricula import Curriculum, as_curriculum, require_probability
from regularizers.functional import masked_mean
from regularizers.training_step import TrainingStep, gather_single_rank


def min_max_weight(
    gain: Tensor, counted: Tensor, gather: Callable[[Tensor], Tensor] = gather_single_rank
) -> Tensor:
    """Map gains to [0, 1], the least of the batch to 0 and the greatest to 1.

    Args:
        gain: ``[B, T]`` fp32, nats; NaN where unknown.
        counted: ``[B, T]`` bool, the tokens among which least and greatest are sought.
        gather: puts together what all ranks give it; called once.

    Returns:
        ``[B, T]``, (s − min s) / (max s − min s); 1 where the gain is unknown, and everywhere if
        all gains are equal.

    >>> gain = torch.tensor([[0.1, 0.1, 0.3, 0.2, torch.nan]])
    >>> min_max_weight(gain, torch.ones_like(gain, dtype=torch.bool))
    tensor([[0.0000, 0.0000, 1.0000, 0.5000, 1.0000]])
    """
    known = counted & ~gain.isnan()
    least = gain.masked_fill(~known, torch.inf).amin()
    greatest = gain.masked_fill(~known, -torch.inf).amax()
    bounds = gather(torch.stack([least, greatest])[None])
    least, greatest = bounds[:, 0].amin(), bounds[:, 1].amax()
    differ = greatest > least
    weight = (gain - least) / torch.where(differ, greatest - least, 1.0)
    return torch.where(differ & known, weight, 1.0)


class HoldoutLossSelection(Regularizer):
    """Weigh each document by how much similar holdout documents help to predict it.

    Holdout text stands for what the model shall become good at (``data.holdout``). A document that
    the model predicts better with such text before it teaches what that text teaches, and a
    document that it does not help is noise or off the target. With l the mean loss of a document y
    under the model before training, and D its nearest holdout documents:

        s = l(y) − l(y | D)
        w = (s − min s) / (max s − min s)
        weight = 1 + strength · (w − 1)

    Least and greatest are those of the documents of a micro-batch over all ranks, so that at
    strength 1 its best document counts fully and its worst not at all. A micro-batch in which all
    gains are equal, such as one that holds a single document, and a document of unknown gain count
    fully.

    The paper scores prompt and answer, (x, y); here x, if there is one, belongs to the document,
    and the loss counts the labels alone. A document that was cut into chunks has a gain for each.
    The paper may score again during training, by default it does not, and neither do we.

    Source:
        Zhang et al. 2025, arXiv 2510.14459.

    Args:
        curriculum: strength in [0, 1], over training; a number is constant.
        neighbours: holdout documents that stand before each training document.

    Raises:
        ValueError: if a setting is out of range.

    >>> HoldoutLossSelection(neighbours=2).requirements.holdout_neighbours
    2
    """

    def __init__(self, curriculum: Curriculum | float = 1.0, neighbours: int = 3) -> None:
        super().__init__()
        self.curriculum = as_curriculum(curriculum)
        require_probability("HoldoutLossSelection curriculum", self.curriculum)
        if neighbours < 1:
            raise ValueError(
                f"HoldoutLossSelection neighbours: expected at least 1, got {neighbours}: the "
                "paper takes 3"
            )
        self.neighbours = neighbours

    @property
    def requirements(self) -> Requirements:
        """The gains of the training documents."""
        return Requirements(holdout_neighbours=self.neighbours)

    def on_token_weight(self, token_weight: Tensor, step: TrainingStep) -> Tensor:
        """Let documents that holdout text does not help count less."""
        assert step.holdout_gain is not None, "it is required"
        strength = self.curriculum(step.progress)
        selected = min_max_weight(step.holdout_gain, step.valid, step.gather)
        weight = 1 + strength * (selected - 1)
        step.log("weight", masked_mean(weight, step.valid))
        known = step.valid & ~step.holdout_gain.isnan()
        step.log("gain", masked_mean(step.holdout_gain, known))
        return token_weight * weight
