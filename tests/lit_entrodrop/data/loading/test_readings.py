from fractions import Fraction

import numpy as np
import pytest

from lit_entrodrop.data.loading.readings import cyclic_readings, interleave, weighted_counts


@pytest.mark.parametrize("size", [1, 2, 7])
@pytest.mark.parametrize("count", [0, 1, 3, 7, 20])
def test_epochs_continue_one_sequence_of_permutations(size: int, count: int) -> None:
    epochs = [cyclic_readings(size, epoch * count, count, [3, 1]) for epoch in range(5)]
    whole = cyclic_readings(size, 0, 5 * count, [3, 1])
    assert np.concatenate(epochs).tolist() == whole.tolist()
    for start in range(0, len(whole) - size + 1, size):
        assert sorted(whole[start : start + size]) == list(range(size))


def test_permutations_differ_by_cycle_and_seed() -> None:
    first, second = np.split(cyclic_readings(50, 0, 100, [0, 0]), 2)
    other = cyclic_readings(50, 0, 50, [0, 1])
    assert first.tolist() != second.tolist()
    assert first.tolist() != other.tolist()


@pytest.mark.parametrize(
    ("sizes", "weights"), [([30, 10], [1, 2]), ([7, 11, 2], [1, 0.3, 5]), ([5, 5], [2, 2])]
)
def test_counts_are_blocks_times_weights(sizes: list[int], weights: list[float]) -> None:
    counts = weighted_counts(sizes, weights)
    products = [size * Fraction(weight) for size, weight in zip(sizes, weights, strict=True)]
    assert sum(counts) == sum(sizes)
    for count, product in zip(counts, products, strict=True):
        assert abs(count - product * sum(sizes) / sum(products)) < 1


@pytest.mark.parametrize(("many", "few"), [(100, 5), (100, 25), (90, 60), (10, 1), (7, 0)])
def test_every_batch_has_its_share(many: int, few: int) -> None:
    merged = interleave([np.arange(many), 1000 + np.arange(few)])
    assert [block for block in merged if block < 1000] == list(range(many))
    assert [block for block in merged if block >= 1000] == list(range(1000, 1000 + few))
    total = many + few
    for size in (1, 4, 8):
        batches = merged[: total - total % size].reshape(-1, size)
        assert (abs((batches >= 1000).sum(1) - size * few / total) <= 1).all()
