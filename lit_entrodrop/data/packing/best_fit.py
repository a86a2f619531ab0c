"""Pack tokenized documents into blocks."""

import numpy as np
from numpy.typing import NDArray

from lit_entrodrop.data.packing.blocks import PackedBlocks
from lit_entrodrop.data.packing.chunking import Chunks, Flags, Integers, chunk_documents
from lit_entrodrop.data.tokenizing import TokenizedDocuments
from lit_entrodrop.runtime.progress import track


def pack_documents(
    documents: TokenizedDocuments, block_size: int, pad_id: int, packing: bool = True
) -> PackedBlocks:
    """Cut documents into chunks and pack the chunks into blocks.

    >>> ids, everywhere = np.arange(8, dtype=np.uint16), np.ones(8, dtype=bool)
    >>> documents = TokenizedDocuments(ids, everywhere, np.array([3, 5]))
    >>> pack_documents(documents, block_size=8, pad_id=0)[0]["labels"].tolist()
    [-100, 1, 2, -100, 4, 5, 6, 7]
    """
    chunks = chunk_documents(documents.lengths, documents.counted, block_size)
    return pack_chunks(chunks, documents.tokens, documents.counted, block_size, pad_id, packing)


def pack_chunks(
    chunks: Chunks,
    tokens: NDArray[np.unsignedinteger],
    counted: Flags,
    block_size: int,
    pad_id: int,
    packing: bool = True,
    groups: Integers | None = None,
) -> PackedBlocks:
    """Pack chunks into blocks, which share their tokens.

    Only the labels of a chunk are counted, not its context. Blocks have at least 2 tokens.

    Args:
        chunks: The chunks.
        tokens: Token ids to which the chunks refer, [tokens]; may be memory-mapped.
        counted: Whether each token is counted, [tokens] bool; may be memory-mapped.
        block_size: Number of tokens in a block, at least 2.
        pad_id: Token that fills the tail of a block.
        packing: Whether a block may have several chunks; if not, each chunk gets its own.
        groups: Group of each chunk, [chunks], from 0; a block has chunks of one group, and the
            blocks of a group are consecutive. By default, all chunks are one group.
    """
    sizes = chunks.lengths
    if groups is None:
        groups = np.zeros(len(sizes), np.int64)
    blocks, count = np.empty(len(sizes), dtype=np.int64), 0
    for group in np.unique(groups):
        own = np.flatnonzero(groups == group)
        bins = best_fit_decreasing(sizes[own], block_size) if packing else np.arange(len(own))
        blocks[own] = count + bins
        count += int(bins.max()) + 1
    block_starts = np.append(0, np.cumsum(np.bincount(blocks)))
    ordered = chunks.select(np.argsort(blocks, kind="stable"))
    return PackedBlocks(tokens, counted, ordered, block_starts, block_size, pad_id)


def best_fit_decreasing(lengths: Integers, capacity: int) -> Integers:
    """Assign items to bins: longest first, each to the fullest bin with enough room.

    Open bins are listed by free space s; bit s of one integer says whether that list has any.
    Finding the fullest fit is then a shift and a lowest set bit, whatever the number of bins.

    Args:
        lengths: Length of each item, [items] int64, in 1..capacity.
        capacity: Size of a bin.

    Returns:
        Bin of each item, [items] int64, from 0.

    Source:
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
