"""Histogram of the entropy of a model's predictions."""

import math

import torch
from torch import Tensor
from torchmetrics import Metric

BINS = 48


class EntropyHistogram(Metric):
    """Number of tokens by entropy of the prediction, in bins of equal width from 0 to ln V nats.

    Args:
        vocabulary_size: Vocabulary size of the model, V.

    >>> histogram = EntropyHistogram(vocabulary_size=4)
    >>> histogram.update(torch.tensor([0.0, 1.3862, torch.nan]))
    >>> histogram.compute()[[0, -1]].tolist()
    [1, 1]
    """

    full_state_update = False
    counts: Tensor

    def __init__(self, vocabulary_size: int) -> None:
        super().__init__()
        self.highest = math.log(vocabulary_size)
        self.add_state("counts", default=torch.zeros(BINS).long(), dist_reduce_fx="sum")

    @property
    def edges(self) -> Tensor:
        """Edges of the bins, ``[bins + 1]`` fp64 nats."""
        return torch.linspace(0, self.highest, BINS + 1, dtype=torch.float64)

    def update(self, entropy: Tensor) -> None:
        """Add the entropies of a batch, a tensor of any shape in nats; NaN is ignored."""
        known = entropy[~entropy.isnan()]
        bins = (known / self.highest * BINS).long().clamp(0, BINS - 1)
        self.counts += torch.bincount(bins, minlength=BINS)

    def compute(self) -> Tensor:
        """Return the number of tokens in each bin, ``[bins]`` int64."""
        return self.counts
