"""Lay holdout chunks before each training chunk, as more blocks of packed text.

C training chunks, k neighbours.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lit_entrodrop.data.blocks import PackedBlocks
from lit_entrodrop.data.chunking import Integers, gather_chunks
from lit_entrodrop.data.packing import pack_documents
from lit_entrodrop.data.tokenizing import TokenizedDocuments


@dataclass(frozen=True, eq=False)
class InContext:
    """Training chunks behind their neighbours, and the same tokens where they stand alone.

    Attributes:
        blocks: one document for each training chunk, numbered as the chunks are: its neighbours,
            then itself; only its own labels are counted.
        alone: ``[tokens]`` bool of the training blocks, the labels that are counted in `blocks`.
    """

    blocks: PackedBlocks
    alone: NDArray[np.bool_]


def in_context(
    train: PackedBlocks,
    holdout: PackedBlocks,
    neighbours: Integers,
    length: int,
    packing: bool = True,
) -> InContext:
    """Lay its neighbours before each training chunk, the nearest next to it.

    Where not all fits, neighbours share alike what the chunk leaves free, or half the length if it
    leaves less; each keeps its first tokens, and so does the chunk.

    Args:
        train: the training chunks.
        holdout: the holdout chunks.
        neighbours: ``[C, k]`` int64, numbers of holdout chunks, the nearest first.
        length: of the blocks, in tokens.
        packing: fill blocks with several chunks and their neighbours.

    Raises:
        ValueError: if so many neighbours leave no token for each.
    """
    count = neighbours.shape[1]
    if count > length // 2:
        raise ValueError(
            f"neighbours: expected at most {length // 2}, half the {length} tokens that they and a "
            f"training chunk share, got {count}: take fewer"
        )
    own = np.diff(train.chunk_starts)
    share = np.maximum(length - own, length // 2) // count
    neighbours = neighbours[:, ::-1]
    given = np.minimum(np.diff(holdout.chunk_starts)[neighbours], share[:, None])
    kept = np.minimum(own, length - given.sum(1))

    starts = np.column_stack(
        [holdout.chunk_starts[neighbours], len(holdout.tokens) + train.chunk_starts[:-1]]
    )
    lengths = np.column_stack([given, kept])
    places = gather_chunks(starts.ravel(), lengths.ravel())
    uncounted = np.zeros(len(holdout.tokens), np.bool_)
    documents = TokenizedDocuments(
        np.concatenate([holdout.tokens, train.tokens])[places],
        np.concatenate([uncounted, train.counted])[places],
        lengths.sum(1),
    )
    blocks = pack_documents(documents, length, train.pad_id, packing)
    within = np.arange(len(train.tokens)) - np.repeat(train.chunk_starts[:-1], own)
    return InContext(blocks, train.counted & (within < np.repeat(kept, own)))
