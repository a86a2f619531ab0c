"""Holdout-loss selection: weight documents by how much similar holdout documents help."""

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
    """Map gains to [0, 1]: the smallest of the batch to 0 and the largest to 1.

    Args:
        gain: Gains ``[B, T]`` fp32, in nats; NaN where unknown.
        counted: Mask ``[B, T]`` bool of the tokens that determine the smallest and the largest
            gain.
        gather: Function that concatenates the tensors of all ranks; called once.

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
    """Weight each document by how much similar holdout documents help predict it.

    Holdout text (``data.holdout``) represents what the model should learn. If such text reduces the
    loss of a document, the document teaches similar content; if not, it is noise or off-topic. With
    l the mean loss of a document y under the model before training, and D its nearest holdout
    documents:

        s = l(y) − l(y | D)
        w = (s − min s) / (max s − min s)
        weight = 1 + strength · (w − 1)

    Minimum and maximum are over the documents of a micro-batch on all ranks. At strength 1, its
    best document has weight 1 and its worst has weight 0. Documents of unknown gain have weight 1,
    and so have all documents of a micro-batch with equal gains, such as a single document.

    The paper scores prompt and answer, (x, y); here a prompt x is part of the document, and the
    loss counts only labels. If a document was split into chunks, each chunk has its own gain. The
    paper can repeat the scoring during training, but does not by default; this implementation never
    does.

    Source:
        Zhang et al. 2025, arXiv 2510.14459.

    Args:
        curriculum: Strength in [0, 1], over training; a number is constant.
        neighbors: Number of holdout documents that precede each training document.

    Raises:
        ValueError: If a setting is out of range.

    >>> HoldoutLossSelection(neighbors=2).requirements.holdout_neighbors
    2
    """

    def __init__(self, curriculum: Curriculum | float = 1.0, neighbors: int = 3) -> None:
        super().__init__()
        self.curriculum = as_curriculum(curriculum)
        require_probability("HoldoutLossSelection curriculum", self.curriculum)
        if neighbors < 1:
            raise ValueError(
                f"HoldoutLossSelection neighbors: expected at least 1, got {neighbors}: the "
                "paper uses 3"
            )
        self.neighbors = neighbors

    @property
    def requirements(self) -> Requirements:
        """The gains of the training documents."""
        return Requirements(holdout_neighbors=self.neighbors)

    def on_token_weight(self, token_weight: Tensor, step: TrainingStep) -> Tensor:
        """Reduce the weight of documents that holdout text does not help."""
        assert step.holdout_gain is not None, "it is required"
        strength = self.curriculum(step.progress)
        selected = min_max_weight(step.holdout_gain, step.valid, step.gather)
        weight = 1 + strength * (selected - 1)
        step.log("weight", masked_mean(weight, step.valid))
        known = step.valid & ~step.holdout_gain.isnan()
        step.log("gain", masked_mean(step.holdout_gain, known))
        return token_weight * weight
