import time

import numpy as np
import pytest

from lit_entrodrop.data.packing import best_fit_decreasing, chunk_documents, gather_chunks


@pytest.mark.parametrize("seed", range(20))
def test_chunks_cover_documents(seed: int) -> None:
    random = np.random.default_rng(seed)
    block_size = int(random.integers(2, 20))
    lengths = random.integers(1, 70, size=50)
    chunks = chunk_documents(lengths, block_size)
    ends = set(np.cumsum(chunks).tolist())
    assert chunks.min() >= 1
    assert chunks.max() <= block_size
    assert ends.issuperset(np.cumsum(lengths).tolist())
    assert len(chunks) == sum(-(-length // block_size) for length in lengths.tolist())


def test_no_chunk_of_a_longer_document_is_a_single_token() -> None:
    lengths = np.arange(2, 200)
    assert all(chunk_documents(lengths, block_size).min() >= 2 for block_size in range(3, 30))


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


def test_gathered_chunks_match_slices() -> None:
    starts, lengths = np.array([7, 0, 30]), np.array([3, 5, 1])
    slices = [range(s, s + n) for s, n in zip(starts.tolist(), lengths.tolist(), strict=True)]
    assert gather_chunks(starts, lengths).tolist() == [index for part in slices for index in part]


def test_packing_a_hundred_thousand_documents_takes_seconds() -> None:
    lengths = np.random.default_rng(0).integers(1, 513, size=100_000)
    start = time.perf_counter()
    best_fit_decreasing(lengths, 512)
    assert time.perf_counter() - start < 10
