"""Which blocks of several sources an epoch reads, and in which order: pure functions."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from lit_entrodrop.data.packing.chunking import Integers


def cyclic_readings(num_blocks: int, start: int, count: int, seed: Sequence[int]) -> Integers:
    """Return some readings of an endless sequence of random permutations of the blocks.

    Args:
        num_blocks: Number of blocks, N; each N readings from a multiple of N contain every block.
        start: Number of the first reading.
        count: Number of readings.
        seed: Seed of the sequence, non-negative numbers.

    Returns:
        Block numbers, [count] int64 in 0..N-1.

    >>> first, second = (cyclic_readings(4, start, 3, [0]) for start in (0, 3))
    >>> sorted(np.append(first, second)[:4].tolist())
    [0, 1, 2, 3]
    """
    first, skipped = divmod(start, num_blocks)
    cycles = range(first, first - (-(skipped + count) // num_blocks))
    permutations = [np.random.default_rng([*seed, n]).permutation(num_blocks) for n in cycles]
    return np.concatenate([*permutations, np.empty(0, np.int64)])[skipped : skipped + count]


def weighted_counts(num_blocks: Sequence[int], weights: Sequence[float]) -> list[int]:
    """Divide as many readings as there are blocks among sources, by blocks times weight.

    Fractions are rounded so that the total stays: the largest ones are rounded up.

    Args:
        num_blocks: Number of blocks of each source.
        weights: Weight of each source, above 0.

    >>> weighted_counts([30, 10], [1.0, 2.0])
    [24, 16]
    """
    exact = np.multiply(num_blocks, weights) * (sum(num_blocks) / np.dot(num_blocks, weights))
    counts = np.floor(exact).astype(np.int64)
    up = np.argsort(counts - exact, kind="stable")[: sum(num_blocks) - int(counts.sum())]
    counts[up] += 1
    return [int(count) for count in counts]


def interleave(parts: Sequence[NDArray[np.integer]]) -> Integers:
    """Merge sequences, each evenly spaced and in its own order.

    Any run of consecutive readings contains each part at its share, to within one or two readings.

    >>> interleave([np.array([0, 1, 2, 3]), np.array([8, 9])]).tolist()
    [0, 8, 1, 2, 9, 3]
    """
    places = [(np.arange(len(part)) + 0.5) / max(len(part), 1) for part in parts]
    order = np.argsort(np.concatenate(places), kind="stable")
    return np.asarray(np.concatenate(parts)[order], dtype=np.int64)
