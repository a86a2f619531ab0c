"""Statistics against scipy and closed forms, and by simulation with losses like those of runs."""

from itertools import pairwise

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import stats

from lit_entrodrop.evaluation.statistics import (
    expanded_confidence,
    holm,
    loss_difference,
    paired_over_documents,
    paired_over_seeds,
    score_interval,
    verdict,
)

Array = NDArray[np.float64]
COMPARISONS = 300
# Of as many comparisons: 5 % and three standard errors.
MOST_BY_CHANCE = COMPARISONS * 0.05 + 3 * (COMPARISONS * 0.05 * 0.95) ** 0.5
ARMS = 4
DOCUMENTS = 150


def simulate_documents(generator: np.random.Generator, count: int, models: int) -> list[Array]:
    """Draw token counts and summed losses of as many models, as far apart as trained ones are.

    Documents are of uneven length and difficulty, which models share; what each model makes of a
    document has heavy tails.
    """
    tokens = np.maximum(2, generator.lognormal(2.8, 0.7, count).round())
    difficulty = generator.gamma(12, 3.8 / 12, count)
    own = generator.standard_t(4, (models, count)) * 0.25 / np.sqrt(tokens / 15)
    return [tokens, *(tokens * np.maximum(0.05, difficulty + own))]


def simulate_seeds(generator: np.random.Generator, shape: tuple[int, ...]) -> Array:
    """Draw losses of runs, [..., arms, seeds]: seeds matter to all arms, and to each on its own."""
    shared = generator.normal(3.8, 0.02, (*shape[:-2], 1, shape[-1]))
    drawn: Array = shared + generator.normal(0, 0.01, shape)
    return drawn


def verdicts(estimates: list[tuple[float, float | None]]) -> list[str]:
    corrected = holm([p_value or 0.0 for _, p_value in estimates])
    return [verdict(d, p) for (d, _), p in zip(estimates, corrected, strict=True)]


def test_seeds_agree_with_closed_form() -> None:
    first, second = np.array([3.70, 3.81, 3.75]), np.array([3.78, 3.82, 3.80])
    d = first - second
    half = 4.302652729911275 * d.std(ddof=1) / np.sqrt(3)  # Student's t with 2 degrees of freedom
    estimate = paired_over_seeds(first, second)
    assert estimate.difference == pytest.approx(d.mean())
    assert (estimate.low, estimate.high) == pytest.approx((d.mean() - half, d.mean() + half))
    one_sample = stats.ttest_1samp(d, 0)
    assert estimate.p_value == pytest.approx(one_sample.pvalue)
    assert estimate.samples == 3


def test_equal_runs_do_not_differ() -> None:
    estimate = paired_over_seeds([3.7, 3.8], [3.7, 3.8])
    assert (estimate.difference, estimate.low, estimate.high, estimate.p_value) == (0, 0, 0, 1)
    same = paired_over_documents([3.0, 4.0], [3.0, 4.0], [1, 2])
    assert (same.difference, same.low, same.high, same.p_value) == (0, 0, 0, 1)


def test_difference_without_spread_is_not_tested() -> None:
    estimate = paired_over_seeds([3.5, 3.75], [3.0, 3.25])
    assert estimate.difference == 0.5
    assert estimate.low is estimate.high is estimate.p_value is None
    assert verdict(estimate.difference, estimate.p_value) == "not tested"


def test_documents_agree_with_the_normal_limit() -> None:
    tokens, first, second = simulate_documents(np.random.default_rng(0), 4000, 2)
    estimate = paired_over_documents(first, second, tokens, resamples=2000)
    expected = (first - second).sum() / tokens.sum()
    residuals = first - second - expected * tokens
    half = 1.96 * np.sqrt((residuals**2).sum()) / tokens.sum()
    assert estimate.low is not None
    assert estimate.high is not None
    assert estimate.difference == pytest.approx(expected)
    assert estimate.high - estimate.low == pytest.approx(2 * half, rel=0.06)
    assert estimate.samples == 4000


def test_documents_give_the_same_interval_each_time() -> None:
    tokens, first, second = simulate_documents(np.random.default_rng(1), 50, 2)
    once, again = (paired_over_documents(first, second, tokens, 200) for _ in range(2))
    assert once == again


def test_documents_without_counted_tokens_are_left_out() -> None:
    full = paired_over_documents([3, 4, 6], [4, 5, 6], [1, 2, 2], 100)
    padded = paired_over_documents([3, 4, 0, 6], [4, 5, 0, 6], [1, 2, 0, 2], 100)
    assert padded == full


def test_holm_agrees_with_its_definition() -> None:
    p_values = list(np.random.default_rng(2).uniform(0, 0.2, 7))
    corrected = holm(p_values)
    ranked = sorted(p_values)
    # Rejected at a level: each of the k smallest is within level / (comparisons left).
    for level in np.linspace(0.01, 1, 50):
        failures = (i for i, p in enumerate(ranked) if p > level / (len(ranked) - i))
        rejected = ranked[: next(failures, len(ranked))]
        assert sorted(p for p, c in zip(p_values, corrected, strict=True) if c <= level) == rejected
    assert holm([]) == []
    assert holm([0.7, 0.8]) == [1, 1]


def test_verdict_needs_a_test() -> None:
    assert verdict(-1.0, None) == "not tested"
    assert verdict(0.0, 0.0) == "no difference shown"


@pytest.mark.parametrize("seeds", [2, 3, 5])
def test_interval_over_seeds_covers(seeds: int) -> None:
    true, count = -0.01, 1000
    drawn = simulate_seeds(np.random.default_rng(seeds), (count, 2, seeds))
    drawn[:, 0] += true
    estimates = [paired_over_seeds(first, second) for first, second in drawn]
    covered = np.mean([e.low <= true <= e.high for e in estimates])  # type: ignore[operator]
    assert covered == pytest.approx(0.95, abs=0.021)  # three standard errors


def test_interval_over_documents_covers() -> None:
    generator, count, true = np.random.default_rng(4), 400, -0.02
    covered = 0
    for _ in range(count):
        tokens, first, second = simulate_documents(generator, DOCUMENTS, 2)
        estimate = paired_over_documents(first + true * tokens, second, tokens, 499)
        assert estimate.low is not None
        assert estimate.high is not None
        covered += estimate.low <= true <= estimate.high
    assert covered / count == pytest.approx(0.95, abs=0.033)  # three standard errors


def test_arms_that_do_the_same_show_no_difference_over_seeds() -> None:
    drawn = simulate_seeds(np.random.default_rng(5), (COMPARISONS, ARMS + 1, 3))
    shown = 0
    for plain, *arms in drawn:
        estimates = [paired_over_seeds(arm, plain) for arm in arms]
        shown += {"no difference shown"} != set(
            verdicts([(e.difference, e.p_value) for e in estimates])
        )
    assert shown <= MOST_BY_CHANCE


def test_shuffled_arms_show_no_difference_over_documents() -> None:
    generator = np.random.default_rng(6)
    shown = 0
    for _ in range(COMPARISONS):
        tokens, *losses = simulate_documents(generator, DOCUMENTS, ARMS + 1)
        # Which arm a document's loss comes from is chance.
        plain, *arms = generator.permuted(np.stack(losses), axis=0)
        estimates = [paired_over_documents(arm, plain, tokens, 199) for arm in arms]
        shown += {"no difference shown"} != set(
            verdicts([(e.difference, e.p_value) for e in estimates])
        )
    assert shown <= MOST_BY_CHANCE


def test_real_differences_are_found() -> None:
    drawn = simulate_seeds(np.random.default_rng(7), (3, 5))
    drawn[1] -= 0.2
    drawn[2] += 0.2
    estimates = [paired_over_seeds(arm, drawn[0]) for arm in drawn[1:]]
    assert verdicts([(e.difference, e.p_value) for e in estimates]) == ["better", "worse"]
    tokens, plain, arm = simulate_documents(np.random.default_rng(8), DOCUMENTS, 2)
    better = paired_over_documents(arm - 0.2 * tokens, plain, tokens, 999)
    assert verdicts([(better.difference, better.p_value)]) == ["better"]


def test_more_documents_narrow_the_interval() -> None:
    widths = []
    for count in (50, 200, 800):
        tokens, first, second = simulate_documents(np.random.default_rng(9), count, 2)
        estimate = paired_over_documents(first, second, tokens, 999)
        assert estimate.low is not None
        assert estimate.high is not None
        widths.append(estimate.high - estimate.low)
    assert all(wide > 1.5 * narrow for wide, narrow in pairwise(widths))


def test_loss_is_over_all_tokens() -> None:
    first, second = np.array([1.0, 9.0]), np.array([2.0, 3.0])
    assert loss_difference(first, second, np.array([1.0, 3.0])) == pytest.approx(10 / 4 - 5 / 4)


@pytest.mark.parametrize("count", [10, 40])
def test_expanded_percentiles_are_as_wide_as_students_interval(count: int) -> None:
    """Of normal samples, whose bootstrap distribution is normal with the variance over n."""
    samples = np.random.default_rng(10).normal(0, 1, count)
    low, high = stats.t.interval(0.95, count - 1, 0, samples.std(ddof=1) / np.sqrt(count))
    bootstrap = stats.norm(0, samples.std(ddof=0) / np.sqrt(count))
    level = expanded_confidence(count)
    ends = bootstrap.ppf([(1 - level) / 2, (1 + level) / 2])
    assert ends == pytest.approx([low, high])


def test_p_value_over_documents_is_exact() -> None:
    """Of all 2^5 exchanges, two sum up to a difference as large as the one that was seen."""
    estimate = paired_over_documents([1, 2, 3, 4, 5], [2, 4, 6, 8, 10], [1, 1, 1, 1, 1], 99)
    assert estimate.p_value == pytest.approx(2 / 32)


def test_what_cannot_be_paired_is_refused() -> None:
    with pytest.raises(ValueError, match="the same seeds or documents of both, at least 2"):
        paired_over_seeds([3.0], [3.0])
    with pytest.raises(ValueError, match=r"\[3\] and \[2\]"):
        paired_over_documents([1, 2, 3], [1, 2], [1, 1, 1])
    with pytest.raises(ValueError, match="at least 2 with counted tokens, got 1"):
        paired_over_documents([1, 2], [1, 3], [1, 0])


@pytest.mark.parametrize(("right", "count"), [(0, 5), (3, 7), (200, 200)])
def test_interval_of_a_score_is_that_of_wilson(right: int, count: int) -> None:
    expected = stats.binomtest(right, count).proportion_ci(method="wilson")
    assert score_interval(right / count, count) == pytest.approx(tuple(expected), abs=1e-12)
