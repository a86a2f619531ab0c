"""Multipliers against scipy and numpy, and their intervals by simulation."""

from math import inf, log

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import optimize, stats

from lit_entrodrop.evaluation.data_multiplier import (
    equivalent_log_tokens,
    multiplier_over_documents,
    multiplier_over_seeds,
    not_rising,
)

TOKENS = np.array([7_500, 15_000, 30_000])
FALL = 0.3  # nats per doubling of the text
TRUE = 1.4
SIMULATIONS = 400


def level(tokens: NDArray[np.int64] | float) -> NDArray[np.float64]:
    """Loss of a baseline that falls by `FALL` with each doubling of the text."""
    return np.asarray(4.0 - FALL * np.log2(np.asarray(tokens) / TOKENS[0]))


def test_curves_are_made_not_to_rise_as_by_scipy() -> None:
    curves = np.random.default_rng(0).normal(0, 1, (50, 5))
    expected = [optimize.isotonic_regression(each, increasing=False).x for each in curves]
    np.testing.assert_allclose(not_rising(curves), expected, rtol=1e-12, atol=1e-12)


def test_curve_is_read_backwards_as_by_numpy() -> None:
    generator = np.random.default_rng(1)
    curves = -np.sort(-generator.normal(3, 1, (50, 4)), axis=-1)
    tokens = np.array([10, 30, 200, 500])
    losses = generator.uniform(curves[:, -1], curves[:, 0])
    expected = [
        np.interp(loss, curve[::-1], np.log(tokens)[::-1])
        for loss, curve in zip(losses, curves, strict=True)
    ]
    found = equivalent_log_tokens(losses, curves, tokens)
    np.testing.assert_allclose(found, expected, rtol=1e-12)
    beyond = equivalent_log_tokens([9.0, -9.0], curves[:2], tokens)
    assert beyond.tolist() == [-inf, inf]


def test_rungs_have_their_own_tokens_and_level_parts_their_middle() -> None:
    np.testing.assert_allclose(
        equivalent_log_tokens(level(TOKENS), level(TOKENS), TOKENS), np.log(TOKENS)
    )
    middle = equivalent_log_tokens(2.5, [3.0, 2.5, 2.5], [100, 200, 800])
    assert middle == pytest.approx(log(400))
    # The second rung is above the first one: both become 2.75.
    assert equivalent_log_tokens(2.5, [2.5, 3.0, 2.25], [100, 200, 400]) == pytest.approx(
        log(200 * 2**0.5)
    )


def test_interval_over_seeds_is_that_of_the_logarithm() -> None:
    shifts = np.array([0.0, 0.01, -0.02])
    multipliers = np.array([1.3, 1.5, 1.4])
    curves = level(TOKENS) + shifts[:, None]
    losses = level(multipliers * TOKENS[1]) + shifts
    found = multiplier_over_seeds(losses, curves, TOKENS, at=1)
    logs = stats.t.interval(0.95, 2, np.log(multipliers).mean(), stats.sem(np.log(multipliers)))
    assert found.value == pytest.approx(np.exp(np.log(multipliers).mean()))
    assert (found.low, found.high) == pytest.approx(tuple(np.exp(logs)))
    assert (found.method, found.samples) == ("paired t over seeds", 3)


@pytest.mark.parametrize(
    ("losses", "value"),
    [([3.1, 3.2], inf), ([4.1, 4.2], 0.0), ([3.35, 3.45], 2.0)],
    ids=["more", "less", "mean within"],
)
def test_nothing_is_extrapolated(losses: list[float], value: float) -> None:
    curves = [[4.0, 3.7, 3.4], [4.0, 3.7, 3.4]]
    found = multiplier_over_seeds(losses, curves, TOKENS, at=1)
    assert found.value == pytest.approx(value)
    assert found.low is found.high is found.method is None


def test_interval_that_leaves_the_curve_is_open() -> None:
    curves = np.tile(level(TOKENS), (2, 1))
    found = multiplier_over_seeds(level(np.array([1.2, 1.9]) * TOKENS[1]), curves, TOKENS, at=1)
    assert found.value == pytest.approx((1.2 * 1.9) ** 0.5)
    assert (found.low, found.high) == (0.0, inf)
    one = multiplier_over_seeds(level([1.2 * TOKENS[1]]), curves[:1], TOKENS, at=1)
    assert one.value == pytest.approx(1.2)
    assert one.low is None


@pytest.mark.parametrize("seeds", [3, 5])
def test_interval_over_seeds_covers_the_true_multiplier(seeds: int) -> None:
    generator = np.random.default_rng(seeds)
    covered = []
    for _ in range(SIMULATIONS):
        shared = generator.normal(0, 0.02, (seeds, 1))
        curves = level(TOKENS) + shared + generator.normal(0, 0.01, (seeds, 3))
        losses = level(TRUE * TOKENS[1]) + shared[:, 0] + generator.normal(0, 0.01, seeds)
        found = multiplier_over_seeds(losses, curves, TOKENS, at=1)
        assert found.low is not None
        assert found.high is not None
        covered.append(found.low <= TRUE <= found.high)
    assert abs(np.mean(covered) - 0.95) < 3 * (0.95 * 0.05 / SIMULATIONS) ** 0.5


def test_interval_over_documents_covers_the_true_multiplier() -> None:
    generator = np.random.default_rng(0)
    documents, simulations, covered = 150, 100, []
    levels = [level(TRUE * TOKENS[1]), *level(TOKENS)]
    for _ in range(simulations):
        counts = np.maximum(2, generator.lognormal(2.8, 0.7, documents).round())
        difficulty = generator.gamma(12, 1 / 12, documents) - 1
        own = generator.standard_t(4, (4, documents)) * 0.25 / np.sqrt(counts / 15)
        nll = counts * (np.array(levels)[:, None] + difficulty + own)
        found = multiplier_over_documents(nll[0], nll[1:], counts, TOKENS, 1, resamples=499)
        assert found.low is not None
        assert found.high is not None
        covered.append(found.low <= TRUE <= found.high)
    assert (found.method, found.samples) == ("bootstrap over documents", documents)
    assert np.mean(covered) > 0.95 - 3 * (0.95 * 0.05 / simulations) ** 0.5
    assert multiplier_over_documents(0 * nll[0], nll[1:], counts, TOKENS, 1).value == inf
