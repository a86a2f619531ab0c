"""Stair steps of the training loss: drops from one epoch to the next."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike
from scipy import stats

from lit_entrodrop.evaluation.statistics import CONFIDENCE

# The first quarter of an epoch's losses is its start, the last quarter its end. Their centers are
# three times as far apart as the end and the next start.
BORDER, DISTANCE = 0.25, 3
LEAST_ROWS = 8
# A smaller drop can come from the learning rate or from one batch, nats per token.
LEAST_DROP = 0.05
# Smallest part of a drop that lasts; a model that memorizes also forgets within an epoch.
LEAST_FALL = 0.25
# Correlation of the scatter in successive epochs from which on the text has the same order.
SAME_ORDER = 0.7
MAD = float(stats.norm.ppf(0.75))  # median absolute deviation of a standard normal variable
RULE = (
    f"The training loss has stair steps if it drops by at least {LEAST_DROP} on average from the "
    "last quarter of an epoch to the first quarter of the next, beyond what the slopes within both "
    f"explain, with {CONFIDENCE:.0%} confidence. Its mean over an epoch must fall by at "
    f"least {LEAST_FALL:.0%} as much, and its scatter must not repeat from epoch to epoch: text in "
    "the same order in each epoch causes drops too."
)


@dataclass(frozen=True)
class EpochDrops:
    """Drops of the training loss at the boundaries of epochs, beyond the slopes around them.

    Attributes:
        drops: Drop at each boundary, nats per token.
        error: Standard error of their mean, from the scatter of the losses within epochs or from
            that of the drops, whichever is larger.
        falls: Fall of the mean loss from epoch to epoch, averaged, nats per token.
        repeats: Correlation of the scatter within successive epochs, averaged.
    """

    drops: list[float]
    error: float
    falls: float
    repeats: float = 0.0

    @property
    def mean(self) -> float:
        """Mean drop, nats per token."""
        return float(np.mean(self.drops))

    @property
    def p_value(self) -> float:
        """One-sided p value of no drop."""
        return float(stats.norm.sf(self.mean / self.error)) if self.error else float(self.mean <= 0)

    @property
    def shown(self) -> bool:
        """Whether the model is shown to recognize text it has seen, by ``RULE``."""
        lasts = self.falls >= LEAST_FALL * self.mean
        return self._large and lasts and self.repeats < SAME_ORDER

    @property
    def from_order(self) -> bool:
        """Whether the drops come from an order of the text that is the same in each epoch."""
        return self._large and not self.shown

    @property
    def _large(self) -> bool:
        return self.mean >= LEAST_DROP and self.p_value < 1 - CONFIDENCE


def epoch_drops(epochs: ArrayLike, losses: ArrayLike) -> EpochDrops | None:
    """Measure how much the training loss drops from the end of an epoch to the start of the next.

    Args:
        epochs: Number of the epoch of each loss, in order, ``[N]``.
        losses: Training losses, ``[N]`` nats per token.

    Returns:
        The drops; None with fewer than two epochs, or fewer than 8 losses in one of them.

    >>> epoch = np.repeat([0, 1, 2], 10)
    >>> [round(drop, 3) for drop in epoch_drops(epoch, 3 - 0.2 * epoch).drops]
    [0.2, 0.2]
    """
    numbers, values = np.asarray(epochs), np.asarray(losses, float)
    parts = [values[numbers == number] for number in np.unique(numbers)]
    if len(parts) < 2 or min(map(len, parts)) < LEAST_ROWS:
        return None
    sizes = np.array([round(BORDER * len(each)) for each in parts])
    starts = np.array([each[:size].mean() for each, size in zip(parts, sizes, strict=True)])
    ends = np.array([each[-size:].mean() for each, size in zip(parts, sizes, strict=True)])
    slopes = (starts - ends) / DISTANCE
    drops = ends[:-1] - starts[1:] - (slopes[:-1] + slopes[1:]) / 2
    error = _error(parts, sizes)
    if len(drops) > 2:
        error = max(error, float(drops.std(ddof=1)) / len(drops) ** 0.5)
    falls = -np.diff([each.mean() for each in parts])
    return EpochDrops(drops.tolist(), error, float(falls.mean()), _repeats(parts))


def _error(parts: list[np.ndarray], sizes: np.ndarray) -> float:
    """Return the standard error of the mean drop if the losses scatter independently."""
    differences = np.concatenate([np.diff(each) for each in parts])
    scatter = np.median(np.abs(differences)) / (MAD * 2**0.5)
    # A drop is a sum of starts and ends with these weights; each occurs in up to two drops.
    own, slope = 1 + 1 / (2 * DISTANCE), 1 / (2 * DISTANCE)
    before, after = np.ones(len(parts)), np.ones(len(parts))
    before[-1] = after[0] = 0
    ends, starts = own * before + slope * after, own * after + slope * before
    return float(scatter * np.sqrt(((ends**2 + starts**2) / sizes).sum()) / (len(parts) - 1))


def _repeats(parts: list[np.ndarray]) -> float:
    """Return the mean correlation of the scatter in successive epochs; trends cancel out in it."""
    rows = min(map(len, parts))
    bends = np.array([np.diff(each[:rows], 2) for each in parts])
    if (bends.std(axis=1) == 0).any():
        return 0.0
    return float(np.mean(np.diag(np.corrcoef(bends), 1)))
