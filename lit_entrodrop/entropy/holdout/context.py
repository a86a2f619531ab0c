"""Training chunks in the context of holdout chunks, as packed blocks.

C training chunks, k neighbors.
"""

import numpy as np
from numpy.typing import NDArray

from lit_entrodrop.data.packing.best_fit import pack_documents
from lit_entrodrop.data.packing.blocks import PackedBlocks
from lit_entrodrop.data.packing.chunking import Integers, gather_chunks
from lit_entrodrop.data.tokenizing import TokenizedDocuments


def with_context(
    train: PackedBlocks,
    holdout: PackedBlocks,
    neighbors: Integers,
    length: int,
    packing: bool = True,
) -> tuple[PackedBlocks, NDArray[np.bool_]]:
    """Prepend its nearest holdout chunks to each training chunk, the nearest one last.

    If they do not fit, the neighbors get equal shares of the space that the chunk leaves, at least
    half of the length in total. Each neighbor keeps its first tokens, and so does the chunk.

    Args:
        train: Blocks of the training chunks.
        holdout: Blocks of the holdout chunks.
        neighbors: Numbers of holdout chunks, [C, k] int64, the nearest first.
        length: Number of tokens in a block of the result.
        packing: Whether to fill blocks with several chunks and their neighbors.

    Returns:
        Blocks with one document per training chunk, in the order of the chunks, in which only
        labels of the chunk are counted; and the labels of `train` counted in both, [tokens] bool.

    Raises:
        ValueError: If there are too many neighbors for each to keep a token.
    """
    count = neighbors.shape[1]
    if count > length // 2:
        raise ValueError(
            f"neighbors: expected at most {length // 2}, half the {length} tokens that they and a "
            f"training chunk share, got {count}: set fewer neighbors"
        )
    own = np.diff(train.chunk_starts)
    share = np.maximum(length - own, length // 2) // count
    neighbors = neighbors[:, ::-1]
    given = np.minimum(np.diff(holdout.chunk_starts)[neighbors], share[:, None])
    kept = np.minimum(own, length - given.sum(1))

    starts = np.column_stack(
        [holdout.chunk_starts[neighbors], holdout.num_tokens + train.chunk_starts[:-1]]
    )
    lengths = np.column_stack([given, kept])
    places = gather_chunks(starts.ravel(), lengths.ravel())
    (before, _), (tokens, counted) = holdout.gather(), train.gather()
    documents = TokenizedDocuments(
        np.concatenate([before, tokens])[places],
        np.concatenate([np.zeros(len(before), np.bool_), counted])[places],
        lengths.sum(1),
    )
    blocks = pack_documents(documents, length, train.pad_id, packing)
    within = np.arange(len(tokens)) - np.repeat(train.chunk_starts[:-1], own)
    return blocks, counted & (within < np.repeat(kept, own))
