"""How sure a difference between two ways of training is."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import stats

CONFIDENCE = 0.95
RESAMPLES = 9999
SEED = 0  # of the resampling, so that the same losses give the same interval
# Drawn at once, for each of the arrays: 32 MB.
BATCH_ELEMENTS = 4_000_000
OVER_SEEDS = "paired t over seeds"
OVER_DOCUMENTS = "bootstrap over documents"

Verdict = Literal["better", "worse", "no difference shown", "not tested"]


@dataclass(frozen=True)
class Estimate:
    """A difference, and between which bounds it lies.

    Args:
        difference: the first minus the second.
        low: lower end of the confidence interval, if one could be computed.
        high: upper end.
        p_value: two-sided, of no difference, uncorrected.
        method: how interval and p value were computed.
        samples: number of seeds or documents.
    """

    difference: float
    low: float | None = None
    high: float | None = None
    p_value: float | None = None
    method: str | None = None
    samples: int = 1


def paired_over_seeds(first: ArrayLike, second: ArrayLike) -> Estimate:
    r"""Estimate a difference from runs that share their seeds, by Student's t.

    $\bar d \pm t_{n-1} s_d / \sqrt{n}$, for the differences $d$ of the $n$ seeds.

    Args:
        first: [n] values of the one, n ≥ 2, one a seed.
        second: [n] values of the other, in the same order.

    Returns:
        The mean difference and its 95 % interval over seeds.

    Raises:
        ValueError: if there are fewer than two pairs.

    >>> estimate = paired_over_seeds([3.1, 3.0, 3.2], [3.3, 3.3, 3.3])
    >>> round(estimate.difference, 3), round(estimate.low, 3), round(estimate.high, 3)
    (-0.2, -0.448, 0.048)
    """
    ours, theirs = _paired(first, second)
    differences = ours - theirs
    mean = float(differences.mean())
    if not np.ptp(differences):
        # No spread to compare with: runs that are equal to the bit, say.
        p_value = 1.0 if mean == 0 else 0.0
        return Estimate(mean, mean, mean, p_value, OVER_SEEDS, len(ours))
    test = stats.ttest_rel(ours, theirs)
    interval = test.confidence_interval(CONFIDENCE)
    ends = float(interval.low), float(interval.high)
    return Estimate(mean, *ends, float(test.pvalue), OVER_SEEDS, len(ours))


def paired_over_documents(
    first: ArrayLike,
    first_tokens: ArrayLike,
    second: ArrayLike,
    second_tokens: ArrayLike,
    resamples: int = RESAMPLES,
) -> Estimate:
    r"""Estimate the difference of two losses per token on other documents of the same kind.

    $\sum_d a_d / \sum_d m_d - \sum_d b_d / \sum_d n_d$, each time over documents that are drawn
    with replacement, the same for both: it speaks of two trained models, not of other seeds.

    Args:
        first: [D] summed nats of the one model, D ≥ 2, one a document.
        first_tokens: [D] tokens m that count.
        second: [D] summed nats of the other, on the same documents.
        second_tokens: [D] tokens n.
        resamples: how often documents are drawn.

    Returns:
        The difference in nats per token and its 95 % percentile interval.

    Raises:
        ValueError: if the documents are not the same number, fewer than two, or without tokens.

    >>> estimate = paired_over_documents([30, 20, 11], [10, 8, 4], [32, 22, 12], [10, 8, 4])
    >>> round(estimate.difference, 3), estimate.high < 0
    (-0.227, True)
    """
    ours, theirs = _paired(first, second)
    our_tokens, their_tokens = _paired(first_tokens, second_tokens)
    _paired(ours, our_tokens)
    used = (our_tokens > 0) | (their_tokens > 0)
    samples = [each[used] for each in (ours, our_tokens, theirs, their_tokens)]
    if used.sum() < 2:
        raise ValueError(
            f"documents: expected at least 2 with tokens that count, got {used.sum()}: evaluate on "
            "more text"
        )
    difference = float(difference_of_ratios(*samples))
    if not np.any(samples[0] * samples[3] - samples[2] * samples[1]):
        return Estimate(difference, difference, difference, 1.0, OVER_DOCUMENTS, len(samples[0]))
    drawn = stats.bootstrap(
        samples,
        difference_of_ratios,
        paired=True,
        vectorized=True,
        method="percentile",
        n_resamples=resamples,
        batch=max(1, BATCH_ELEMENTS // len(samples[0])),
        confidence_level=CONFIDENCE,
        rng=np.random.default_rng(SEED),
    )
    low, high = map(float, drawn.confidence_interval)
    p_value = two_sided(drawn.bootstrap_distribution)
    return Estimate(difference, low, high, p_value, OVER_DOCUMENTS, len(samples[0]))


def difference_of_ratios(*sums: Any, axis: int = -1) -> Any:
    """Return Σa/Σm − Σb/Σn.

    Args:
        sums: a, m, b and n, whose elements are documents along one axis.
        axis: that one.

    >>> float(difference_of_ratios(np.ones(2), np.ones(2), np.ones(2), np.full(2, 2.0)))
    0.5
    """
    a, m, b, n = (each.sum(axis) for each in sums)
    return a / m - b / n


def two_sided(distribution: NDArray[np.float64]) -> float:
    """Return twice the smaller share of a bootstrap distribution on either side of zero.

    It is below 5 % exactly where the 95 % percentile interval does not hold zero.

    Args:
        distribution: differences, [resamples].

    >>> round(two_sided(np.array([-2.0, -1.0, -3.0])), 2)
    0.5
    """
    sides = [(distribution <= 0).sum(), (distribution >= 0).sum()]
    # One more, as no number of draws shows that a difference is impossible.
    return float(min(1.0, 2 * (min(sides) + 1) / (len(distribution) + 1)))


def holm(p_values: Sequence[float]) -> list[float]:
    """Correct p values of several comparisons, so that 5 % holds for all of them together.

    Args:
        p_values: uncorrected.

    Returns:
        Corrected ones, in the same order (Holm, 1979).

    >>> holm([0.01, 0.04, 0.03])
    [0.03, 0.06, 0.06]
    """
    order = np.argsort(p_values)
    remaining = len(p_values) - np.arange(len(p_values))
    raised = np.maximum.accumulate(np.asarray(p_values, float)[order] * remaining)
    corrected = np.empty(len(p_values))
    corrected[order] = np.minimum(raised, 1)
    return [float(value) for value in corrected]


def verdict(difference: float, p_value: float | None) -> Verdict:
    """Say in words whether a loss is lower than the one that it is compared with.

    Args:
        difference: of losses, lower being better.
        p_value: corrected; None if nothing could be tested.

    >>> verdict(-0.1, 0.01), verdict(0.1, 0.01), verdict(-0.1, 0.06)
    ('better', 'worse', 'no difference shown')
    """
    if p_value is None:
        return "not tested"
    if p_value >= 1 - CONFIDENCE or difference == 0:
        return "no difference shown"
    return "better" if difference < 0 else "worse"


def _paired(first: ArrayLike, second: ArrayLike) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    ours, theirs = np.asarray(first, float), np.asarray(second, float)
    if ours.ndim != 1 or ours.shape != theirs.shape or len(ours) < 2:
        raise ValueError(
            "comparison: expected the same seeds or documents of both, at least 2, got "
            f"{list(ours.shape)} and {list(theirs.shape)}"
        )
    return ours, theirs
