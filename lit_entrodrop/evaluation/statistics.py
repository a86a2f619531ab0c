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
SAME = 1e-12  # values that are closer, relatively, differ by rounding alone
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
        The mean difference and its 95 % interval over seeds; without interval and p value if all
        seeds differ by the same amount, which leaves no spread to judge by.

    Raises:
        ValueError: if there are fewer than two pairs.

    >>> estimate = paired_over_seeds([3.1, 3.0, 3.2], [3.3, 3.3, 3.3])
    >>> round(estimate.difference, 3), round(estimate.low, 3), round(estimate.high, 3)
    (-0.2, -0.448, 0.048)
    """
    ours, theirs = _paired(first, second)
    differences = ours - theirs
    mean = float(differences.mean())
    if np.ptp(differences) <= SAME * np.abs([ours, theirs]).max():
        # Runs that are equal do not differ. Without a spread, no other difference can be judged.
        if abs(mean) <= SAME * np.abs([ours, theirs]).max():
            return Estimate(mean, mean, mean, 1.0, OVER_SEEDS, len(ours))
        return Estimate(mean, method=OVER_SEEDS, samples=len(ours))
    test = stats.ttest_rel(ours, theirs)
    interval = test.confidence_interval(CONFIDENCE)
    ends = float(interval.low), float(interval.high)
    return Estimate(mean, *ends, float(test.pvalue), OVER_SEEDS, len(ours))


def paired_over_documents(
    first: ArrayLike, second: ArrayLike, tokens: ArrayLike, resamples: int = RESAMPLES
) -> Estimate:
    r"""Estimate the difference of two losses per token on other documents of the same kind.

    $\sum_d (a_d - b_d) / \sum_d n_d$. The interval is that of the bootstrap: documents are drawn
    with replacement, the same for both. The p value is that of the permutation test, which is exact
    for few documents too: in each document the two losses change places by chance. Both speak of
    two trained models, not of those that other seeds would give.

    Args:
        first: [D] summed nats a of the one model, D ≥ 2, one a document.
        second: [D] summed nats b of the other, on the same documents.
        tokens: [D] tokens n that count.
        resamples: how often documents are drawn.

    Returns:
        The difference in nats per token and its 95 % interval over documents.

    Raises:
        ValueError: if the documents are not the same number, fewer than two, or without tokens.

    >>> estimate = paired_over_documents([30, 20, 11, 9], [32, 22, 12, 10], [10, 8, 4, 4])
    >>> round(estimate.difference, 3), estimate.high < 0
    (-0.231, True)
    """
    ours, theirs = _paired(first, second)
    _, counts = _paired(first, tokens)
    samples = [each[counts > 0] for each in (ours, theirs, counts)]
    if (count := len(samples[0])) < 2:
        raise ValueError(
            f"documents: expected at least 2 with tokens that count, got {count}: evaluate on more "
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
        samples[:2], _sum_difference, permutation_type="samples", **drawing
    )
    low, high = map(float, drawn.confidence_interval)
    return Estimate(difference, low, high, float(swapped.pvalue), OVER_DOCUMENTS, count)


def loss_difference(first: Any, second: Any, tokens: Any, axis: int = -1) -> Any:
    """Return Σ(a − b) / Σn along an axis.

    >>> float(loss_difference(np.array([3.0, 3.0]), np.array([2.0, 2.0]), np.array([1.0, 3.0])))
    0.5
    """
    return (first.sum(axis) - second.sum(axis)) / tokens.sum(axis)


def expanded_confidence(count: int) -> float:
    """Return the level at which percentiles of a bootstrap hold the truth in 95 % of cases.

    Percentiles of few samples are too narrow, as a normal interval without Student's t and with the
    variance divided by n would be: equation 12 of Hesterberg, "What Teachers Should Know About the
    Bootstrap", 2015.

    Args:
        count: of samples, at least 2.

    >>> round(expanded_confidence(30), 3), round(expanded_confidence(3000), 3)
    (0.962, 0.95)
    """
    quantile = stats.t.ppf((1 + CONFIDENCE) / 2, count - 1) * np.sqrt(count / (count - 1))
    return float(2 * stats.norm.cdf(quantile) - 1)


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


def _sum_difference(first: Any, second: Any, axis: int = -1) -> Any:
    return first.sum(axis) - second.sum(axis)
