"""Cut documents into chunks and pack the chunks into blocks."""

import numpy as np
from numpy.typing import NDArray

from lit_entrodrop.runtime.progress import track

Integers = NDArray[np.int64]


def chunk_documents(lengths: Integers, block_size: int) -> Integers:
    """Cut every document into chunks of at most `block_size` tokens.

    A leftover of a single token could carry no label, as nothing precedes it; the chunk before
    then gives it its last token (not for blocks of 2, where that would only move the problem).

    Args:
        lengths: [documents] int64, each at least 1, tokens.
        block_size: Tokens in a block, at least 2.

    Returns:
        [chunks] int64, tokens of each chunk, in the order of the text.

    >>> chunk_documents(np.array([3, 9]), block_size=4).tolist()
    [3, 4, 3, 2]
    """
    counts = -(-lengths // block_size)
    chunks = np.full(int(counts.sum()), block_size, dtype=np.int64)
    last = np.cumsum(counts) - 1
    chunks[last] = lengths - (counts - 1) * block_size
    if block_size > 2:
        lonely = last[(chunks[last] == 1) & (counts > 1)]
        chunks[lonely] += 1
        chunks[lonely - 1] -= 1
    return chunks


def documents_of_chunks(lengths: Integers, block_size: int) -> Integers:
    """Tell which document each chunk is of.

    Args:
        lengths: [documents] int64, each at least 1, tokens.
        block_size: Tokens in a block.

    Returns:
        [chunks] int64, in the order of `chunk_documents`.

    >>> documents_of_chunks(np.array([3, 9]), block_size=4).tolist()
    [0, 1, 1, 1]
    """
    return np.repeat(np.arange(len(lengths)), -(-lengths // block_size))


def best_fit_decreasing(lengths: Integers, capacity: int) -> Integers:
    """Assign items to bins: longest first, each to the fullest bin that still takes it.

    The bins with s free places are a list, and bit s of one integer tells whether that list has
    any, so finding the fullest fit is a shift and a lowest set bit, whatever the number of bins.

    Args:
        lengths: [items] int64, in 1..capacity.
        capacity: Size of a bin.

    Returns:
        [items] int64, the bin of each item, counted from 0.

    References:
        Ding et al. 2024, Fewer Truncations Improve Language Modeling (arXiv 2404.10830).

    >>> best_fit_decreasing(np.array([2, 6, 5, 3]), capacity=8).tolist()
    [0, 0, 1, 1]
    """
    bins = np.empty(len(lengths), dtype=np.int64)
    open_bins: list[list[int]] = [[] for _ in range(capacity + 1)]
    free, opened = 0, 0
    order = np.argsort(-lengths, kind="stable")
    pairs = zip(order.tolist(), lengths[order].tolist(), strict=True)
    for item, length in track(pairs, "Packing", total=len(lengths), unit="chunks"):
        if fitting := free >> length:
            space = length + (fitting & -fitting).bit_length() - 1
            chosen = open_bins[space].pop()
            if not open_bins[space]:
                free ^= 1 << space
        else:
            space, chosen, opened = capacity, opened, opened + 1
        if rest := space - length:
            open_bins[rest].append(chosen)
            free |= 1 << rest
        bins[item] = chosen
    return bins


def gather_chunks(starts: Integers, lengths: Integers) -> Integers:
    """List the token indices of chunks laid one after another.

    Args:
        starts: [chunks] int64, index of each chunk's first token.
        lengths: [chunks] int64, tokens of each chunk.

    Returns:
        [lengths.sum()] int64, indices into the token array.

    >>> gather_chunks(np.array([5, 0]), np.array([2, 3])).tolist()
    [5, 6, 0, 1, 2]
    """
    ends = np.cumsum(lengths)
    return np.repeat(starts - ends + lengths, lengths) + np.arange(int(lengths.sum()))
