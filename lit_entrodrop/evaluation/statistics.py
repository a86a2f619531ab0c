"""Confidence intervals and tests of the difference between two ways of training."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import stats

CONFIDENCE = 0.95
RESAMPLES = 9999
SEED = 0  # of the resampling: the same losses give the same interval
# Elements drawn at once for each array: 32 MB.
BATCH_ELEMENTS = 4_000_000
SAME = 1e-12  # a smaller relative difference is rounding
OVER_SEEDS = "paired t over seeds"
OVER_DOCUMENTS = "bootstrap over documents"
OVER_ITEMS = "bootstrap over items"

DifferenceVerdict = Literal["better", "worse", "no difference shown", "not tested"]


@dataclass(frozen=True)
class Estimate:
    """A difference and its confidence interval.

    Args:
        difference: First value minus second value.
        low: Lower end of the confidence interval; None if it could not be computed.
        high: Upper end of the confidence interval; None if it could not be computed.
        p_value: Two-sided p value of no difference, uncorrected; None if nothing was tested.
        method: Method of the interval and the p value.
        samples: Number of seeds, documents or items.
    """

    difference: float
    low: float | None = None
    high: float | None = None
    p_value: float | None = None
    method: str | None = None
    samples: int = 1


def paired_over_seeds(first: ArrayLike, second: ArrayLike) -> Estimate:
    r"""Estimate a difference from runs that share their seeds, by Student's t.

    $\bar d \pm t_{n-1} s_d / \sqrt{n}$, for the differences $d$ of the $n$ seeds. If all seeds
    differ by the same amount, there is no variance, and so neither interval nor p value.

    Args:
        first: Values of the first kind of runs, one per seed, [n], n ≥ 2.
        second: Values of the second kind of runs, in the same order, [n].

    >>> estimate = paired_over_seeds([3.1, 3.0, 3.2], [3.3, 3.3, 3.3])
    >>> round(estimate.difference, 3), round(estimate.low, 3), round(estimate.high, 3)
    (-0.2, -0.448, 0.048)
    """
    one, other = _paired(first, second)
    differences = one - other
    mean = float(differences.mean())
    rounding = SAME * np.abs([one, other]).max()
    if np.ptp(differences) <= rounding:
        # Equal runs do not differ. Without variance, no other difference can be tested.
        if abs(mean) <= rounding:
            return Estimate(mean, mean, mean, 1.0, OVER_SEEDS, len(one))
        return Estimate(mean, method=OVER_SEEDS, samples=len(one))
    test = stats.ttest_rel(one, other)
    low, high = map(float, test.confidence_interval(CONFIDENCE))
    return Estimate(mean, low, high, float(test.pvalue), OVER_SEEDS, len(one))


def paired_over_documents(
    first: ArrayLike, second: ArrayLike, tokens: ArrayLike, resamples: int = RESAMPLES
) -> Estimate:
    r"""Estimate the difference of two losses, nats per token, generalized to similar documents.

    $\sum_d (a_d - b_d) / \sum_d n_d$. The 95% interval comes from a bootstrap, which draws the same
    documents with replacement for both models. The p value comes from a permutation test, which
    swaps the two losses of each document at random and is exact for few documents too. Both are
    about these two trained models: other seeds may give other differences.

    Args:
        first: Summed loss of each document under the first model, a, nats, [D], D ≥ 2.
        second: Summed loss of the same documents under the second model, b, nats, [D].
        tokens: Number of counted tokens of each document, n, [D].
        resamples: Number of bootstrap samples. Default: 9999.

    Raises:
        ValueError: If the numbers of documents differ, or fewer than two documents have tokens.

    >>> estimate = paired_over_documents([30, 20, 11, 9], [32, 22, 12, 10], [10, 8, 4, 4])
    >>> round(estimate.difference, 3), estimate.high < 0
    (-0.231, True)
    """
    one, other = _paired(first, second)
    _, counts = _paired(first, tokens)
    samples = [each[counts > 0] for each in (one, other, counts)]
    if (count := len(samples[0])) < 2:
        raise ValueError(
            f"documents: expected at least 2 with counted tokens, got {count}: evaluate on more "
            "text"
        )
    difference = float(loss_difference(samples[0], samples[1], samples[2]))
    if np.array_equal(samples[0], samples[1]):
        return Estimate(difference, difference, difference, 1.0, OVER_DOCUMENTS, count)
    drawing: dict[str, Any] = {
        "vectorized": True,
        "n_resamples": resamples,
        "batch": max(1, BATCH_ELEMENTS // count),
        "rng": np.random.default_rng(SEED),
    }
    drawn = stats.bootstrap(
        samples,
        loss_difference,
        paired=True,
        method="percentile",
        confidence_level=expanded_confidence(count),
        **drawing,
    )
    swapped = stats.permutation_test(
        samples[:2],
        lambda first, second, axis: first.sum(axis) - second.sum(axis),
        permutation_type="samples",
        **drawing,
    )
    low, high = map(float, drawn.confidence_interval)
    return Estimate(difference, low, high, float(swapped.pvalue), OVER_DOCUMENTS, count)


def paired_over_items(first: ArrayLike, second: ArrayLike) -> Estimate:
    """Estimate the difference of two mean scores, generalized to similar items of a task.

    The method is that of :func:`paired_over_documents`, with one score per item.

    Args:
        first: Score of each item under the first model, [n], n ≥ 2.
        second: Score of the same items under the second model, [n].

    >>> estimate = paired_over_items([1, 1, 1, 0, 1, 1, 1, 1], [0, 0, 0, 0, 1, 0, 1, 0])
    >>> estimate.difference, estimate.low > 0, estimate.method
    (0.625, True, 'bootstrap over items')
    """
    return replace(
        paired_over_documents(first, second, np.ones_like(first, dtype=float)), method=OVER_ITEMS
    )


def score_interval(mean: float, count: int) -> tuple[float, float]:
    """Return the 95% interval of a mean score in [0, 1], generalized to similar items.

    Of scores that are 0 or 1, it is the interval of Wilson 1927, which holds for few items and for
    means of 0 and 1 too. Of other scores, whose variance is lower, it is wider than needed.

    Args:
        mean: Mean over the items.
        count: Number of items, n ≥ 1.

    >>> [round(end, 3) for end in score_interval(0.9, 50)]
    [0.786, 0.957]
    """
    squared = float(stats.norm.ppf((1 + CONFIDENCE) / 2)) ** 2
    middle = (mean + squared / (2 * count)) / (1 + squared / count)
    spread = squared * mean * (1 - mean) / count + (squared / (2 * count)) ** 2
    half = spread**0.5 / (1 + squared / count)
    return max(0.0, middle - half), min(1.0, middle + half)


def loss_difference(first: Any, second: Any, tokens: Any, axis: int = -1) -> Any:
    """Return Σ(a − b) / Σn along an axis.

    >>> float(loss_difference(np.array([3.0, 3.0]), np.array([2.0, 2.0]), np.array([1.0, 3.0])))
    0.5
    """
    return (first.sum(axis) - second.sum(axis)) / tokens.sum(axis)


def expanded_confidence(count: int) -> float:
    """Return the level at which bootstrap percentiles cover the true value in 95% of cases.

    Percentile intervals of few samples are too narrow, like a normal interval without Student's t
    and with the variance divided by n: Hesterberg 2015, "What Teachers Should Know About the
    Bootstrap", equation 12.

    >>> round(expanded_confidence(30), 3), round(expanded_confidence(3000), 3)
    (0.962, 0.95)
    """
    quantile = stats.t.ppf((1 + CONFIDENCE) / 2, count - 1) * np.sqrt(count / (count - 1))
    return float(2 * stats.norm.cdf(quantile) - 1)


def holm(p_values: Sequence[float]) -> list[float]:
    """Correct p values for several comparisons: keep the family-wise error rate (Holm 1979).

    >>> holm([0.01, 0.04, 0.03])
    [0.03, 0.06, 0.06]
    """
    order = np.argsort(p_values)
    remaining = len(p_values) - np.arange(len(p_values))
    raised = np.maximum.accumulate(np.asarray(p_values, float)[order] * remaining)
    corrected = np.empty(len(p_values))
    corrected[order] = np.minimum(raised, 1)
    return corrected.tolist()


def verdict(difference: float, p_value: float | None) -> DifferenceVerdict:
    """Return the verdict on a difference of losses from its corrected p value, if it was tested.

    >>> verdict(-0.1, 0.01), verdict(0.1, 0.01), verdict(-0.1, 0.06)
    ('better', 'worse', 'no difference shown')
    """
    if p_value is None:
        return "not tested"
    if p_value >= 1 - CONFIDENCE or difference == 0:
        return "no difference shown"
    return "better" if difference < 0 else "worse"


def _paired(first: ArrayLike, second: ArrayLike) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    one, other = np.asarray(first, float), np.asarray(second, float)
    if one.ndim != 1 or one.shape != other.shape or len(one) < 2:
        raise ValueError(
            "comparison: expected the same seeds or documents of both, at least 2, got "
            f"{list(one.shape)} and {list(other.shape)}"
        )
    return one, other
