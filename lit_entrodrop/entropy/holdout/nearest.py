"""Search for the holdout chunks nearest to each training chunk.

C training chunks, H holdout chunks, V vocabulary size, k neighbors.
"""

import numpy as np
from scipy.sparse import csr_array

from lit_entrodrop.data.packing.blocks import PackedBlocks
from lit_entrodrop.data.packing.chunking import Integers

SLAB = 2**22


def nearest_chunks(train: PackedBlocks, holdout: PackedBlocks, count: int) -> Integers:
    """Rank holdout chunks by the cosine similarity of TF-IDF weighted token counts.

    The ranking depends only on the tokens: it needs no embedding model, and is the same on all
    ranks, in all precisions and after a resume. `count` is k.

    Returns:
        Numbers of holdout chunks, [C, min(k, H)] int64, the nearest first; ties by number.
    """
    size = int(max(train.tokens.max(), holdout.tokens.max())) + 1
    queries, pool = token_counts(train, size), token_counts(holdout, size)
    chunks = pool.shape[0]
    containing = np.bincount(pool.indices, minlength=size)
    rarity = np.log((1 + chunks) / (1 + containing))
    weighted = pool.multiply(rarity)
    lengths = np.sqrt(weighted.power(2).sum(1))
    # The norm of the training chunk is omitted, because it does not change the order.
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


def token_counts(blocks: PackedBlocks, size: int) -> "csr_array":
    """Count the tokens of each chunk by id, a sparse matrix [chunks, size] float32."""
    ids = blocks.gather()[0].astype(np.int32)
    values = np.ones(len(ids), np.float32), ids, blocks.chunk_starts.copy()
    # Copied because sum_duplicates sorts in place.
    counts = csr_array(values, shape=(blocks.num_chunks, size))
    counts.sum_duplicates()
    return counts
