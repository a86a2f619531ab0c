"""Find the holdout chunks that are nearest to each training chunk.

C training chunks, H holdout chunks, V words, k neighbours.
"""

import numpy as np
from scipy.sparse import csr_array

from lit_entrodrop.data.blocks import PackedBlocks
from lit_entrodrop.data.chunking import Integers

SLAB = 2**22


def nearest_chunks(train: PackedBlocks, holdout: PackedBlocks, count: int) -> Integers:
    """Rank holdout chunks by the cosine of word counts, in which rare words weigh more (TF-IDF).

    It depends on the tokens alone: there is no need for a second model, and all ranks, precisions
    and resumed runs find the same.

    Args:
        train: the training chunks.
        holdout: the holdout chunks.
        count: neighbours of each training chunk, k; all holdout chunks if there are fewer.

    Returns:
        ``[C, min(k, H)]`` int64, numbers of holdout chunks, the nearest first; of equally near
        ones the first comes first.
    """
    size = int(max(train.tokens.max(), holdout.tokens.max())) + 1
    queries, pool = word_counts(train, size), word_counts(holdout, size)
    chunks = pool.shape[0]
    containing = np.bincount(pool.indices, minlength=size)
    rarity = np.log((1 + chunks) / (1 + containing))
    weighted = pool.multiply(rarity)
    lengths = np.sqrt(weighted.power(2).sum(1))
    # A factor of the training chunk changes no order, so that its own length is left out.
    towards = weighted.multiply(rarity).multiply(1 / np.maximum(lengths, 1e-12)[:, None]).T.tocsr()
    found = np.empty((queries.shape[0], min(count, chunks)), np.int64)
    height = max(1, SLAB // chunks)
    for start in range(0, len(found), height):
        similarity = (queries[start : start + height] @ towards).toarray()
        rows = np.arange(len(similarity))
        for rank in range(found.shape[1]):
            best = similarity.argmax(1)
            found[start : start + height, rank] = best
            similarity[rows, best] = -np.inf
    return found


def word_counts(blocks: PackedBlocks, size: int) -> "csr_array":
    """Count the words of each chunk.

    Args:
        blocks: the chunks.
        size: number of words, V.

    Returns:
        ``[chunks, V]`` float32, sparse.
    """
    chunks, ones = blocks.num_chunks, np.ones(len(blocks.tokens), np.float32)
    words = np.asarray(blocks.tokens).astype(np.int32)
    # Copied, as the rows are sorted in place.
    counts = csr_array((ones, words, np.array(blocks.chunk_starts)), shape=(chunks, size))
    counts.sum_duplicates()
    return counts
