import time

import numpy as np
import pytest

from lit_entrodrop.data.packing.best_fit import best_fit_decreasing


def naive_best_fit(lengths: list[int], capacity: int) -> list[int]:
    """Count the bins that best-fit decreasing fills, by scanning all bins."""
    spaces: list[int] = []
    for length in sorted(lengths, reverse=True):
        fitting = [(space, n) for n, space in enumerate(spaces) if space >= length]
        if fitting:
            spaces[min(fitting)[1]] -= length
        else:
            spaces.append(capacity - length)
    return sorted(spaces)


@pytest.mark.parametrize("seed", range(20))
def test_bins_are_those_of_a_naive_best_fit(seed: int) -> None:
    random = np.random.default_rng(seed)
    capacity = int(random.integers(2, 40))
    lengths = random.integers(1, capacity + 1, size=120)
    bins = best_fit_decreasing(lengths, capacity)
    filled = np.bincount(bins, weights=lengths)
    assert sorted((capacity - filled).astype(int).tolist()) == naive_best_fit(
        lengths.tolist(), capacity
    )


def test_packing_is_deterministic() -> None:
    lengths = np.random.default_rng(0).integers(1, 65, size=500)
    first, second = (best_fit_decreasing(lengths.copy(), 64) for _ in range(2))
    assert (first == second).all()


def test_packing_a_hundred_thousand_documents_takes_seconds() -> None:
    lengths = np.random.default_rng(0).integers(1, 513, size=100_000)
    start = time.perf_counter()
    best_fit_decreasing(lengths, 512)
    assert time.perf_counter() - start < 10
