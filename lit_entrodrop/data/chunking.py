"""Cut documents that are longer than a block into chunks."""

import numpy as np
from numpy.typing import NDArray

Integers = NDArray[np.int64]


def chunk_documents(lengths: Integers, block_size: int) -> Integers:
    """Cut every document into chunks of at most `block_size` tokens.

    A final chunk of a single token could have no label, as no token precedes it. The chunk before
    it therefore gives up its last token; with blocks of 2, that would only move the problem.

    Args:
        lengths: Number of tokens in each document, [documents] int64, at least 1.
        block_size: Number of tokens in a block, at least 2.

    Returns:
        Number of tokens in each chunk, [chunks] int64, in text order.

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
    """Return the document number of each chunk of `chunk_documents`, [chunks] int64.

    >>> documents_of_chunks(np.array([3, 9]), block_size=4).tolist()
    [0, 1, 1, 1]
    """
    return np.repeat(np.arange(len(lengths)), -(-lengths // block_size))


def gather_chunks(starts: Integers, lengths: Integers) -> Integers:
    """Return the token indices of concatenated chunks, [lengths.sum()] int64.

    >>> gather_chunks(np.array([5, 0]), np.array([2, 3])).tolist()
    [5, 6, 0, 1, 2]
    """
    ends = np.cumsum(lengths)
    return np.repeat(starts - ends + lengths, lengths) + np.arange(int(lengths.sum()))
