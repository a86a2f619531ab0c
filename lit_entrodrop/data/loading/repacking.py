"""Cut long documents at new places, and pack all chunks again, in each epoch."""

from collections.abc import Callable
from functools import cached_property
from typing import Literal

import numpy as np

from lit_entrodrop.data.orders import BlockOrder
from lit_entrodrop.data.packing.array_files import release_pages
from lit_entrodrop.data.packing.best_fit import pack_chunks
from lit_entrodrop.data.packing.blocks import PackedBlocks
from lit_entrodrop.data.packing.chunking import Chunks, Integers, chunk_lengths
from lit_entrodrop.runtime.progress import progress

Repack = Literal["never", "epoch"]


def check_repack(repack: Repack, order: BlockOrder) -> None:
    """Raise a ValueError for blocks of each epoch with an order that follows losses of blocks."""
    if repack == "epoch" and order.reads_losses:
        raise ValueError(
            "data.repack: expected never, because the order reads blocks by their earlier losses, "
            f"got epoch, in which each epoch has other blocks: remove {type(order).__name__} from "
            "data.order, or set data.repack to never"
        )


class Repacking:
    """Blocks of each epoch, which share their tokens; a pure function of (seed, epoch).

    Epoch 0 has the given blocks. In each later epoch, a document of plain text that is longer than
    a block is first cut after a random number of tokens, 2 to T, uniformly, and then after every T
    tokens, where T is the block size. Prompts and chats keep their chunks, which begin where their
    labels need context. The chunks are packed in random order.

    Args:
        first: Blocks of epoch 0.
        seed: Seed of all epochs.
        packing: Whether a block may have several chunks.

    >>> from lit_entrodrop.data.packing.best_fit import pack_documents
    >>> from lit_entrodrop.data.tokenizing import TokenizedDocuments
    >>> documents = TokenizedDocuments(np.arange(20), np.ones(20, bool), np.array([20]))
    >>> repacking = Repacking(pack_documents(documents, block_size=8, pad_id=0), seed=0)
    >>> [sorted(repacking.blocks(epoch).chunks.starts.tolist()) for epoch in range(3)]
    [[0, 8, 16], [0, 5, 13], [0, 8, 16]]
    """

    def __init__(self, first: PackedBlocks, seed: int, packing: bool = True) -> None:
        self.first = first
        self.seed = seed
        self.packing = packing
        self._latest = 0, first
        self._counts = [len(first)]

    def blocks(self, epoch: int) -> PackedBlocks:
        """Return the blocks of an epoch."""
        if epoch == 0:
            return self.first
        if self._latest[0] != epoch:
            self._latest = epoch, self._pack(epoch)
        return self._latest[1]

    def count(self, epoch: int) -> int:
        """Count the blocks of an epoch; each epoch is packed once for it."""
        while len(self._counts) <= epoch:
            self._counts.append(len(self._pack(len(self._counts))))
        return self._counts[epoch]

    def most_blocks(self, count_epochs: Callable[[int], int]) -> int:
        """Return the largest number of blocks in an epoch of a run.

        Args:
            count_epochs: Function from the number of blocks that an epoch reads to the number of
                epochs of the run, which does not increase; 0 if it has no end.
        """
        most, epochs, is_constant = self.count(0), 1, not len(self._parts[1])
        with progress("Packing all epochs", count_epochs(most), unit="epochs") as advance:
            while not is_constant and epochs < count_epochs(most):
                most, epochs = max(most, self.count(epochs)), epochs + 1
                advance()
        return most

    @cached_property
    def _parts(self) -> tuple[Chunks, Integers, Integers, Integers]:
        """Chunks that stay, and start, length and number of each document that is recut."""
        tokens, counted, chunks = self.first.tokens, self.first.counted, self.first.chunks
        chunks = chunks.select(np.lexsort((chunks.starts, chunks.documents)))
        ends = chunks.starts + chunks.lengths
        documents, firsts = np.unique(chunks.documents, return_index=True)
        lasts = np.append(firsts[1:], len(ends)) - 1
        follows = chunks.first_labels == chunks.starts + 1
        follows[1:] &= (chunks.starts[1:] == ends[:-1]) | (np.diff(chunks.documents) > 0)
        recut = np.logical_and.reduceat(follows, firsts) & (lasts > firsts)
        for document in np.flatnonzero(recut):
            span = slice(chunks.starts[firsts[document]], ends[lasts[document]])
            recut[document] = counted[span].all()
        release_pages(counted)
        release_pages(tokens)
        starts = chunks.starts[firsts[recut]]
        stay = ~np.repeat(recut, lasts - firsts + 1)
        return chunks.select(stay), starts, ends[lasts[recut]] - starts, documents[recut]

    def _pack(self, epoch: int) -> PackedBlocks:
        first, (stay, starts, lengths, documents) = self.first, self._parts
        random = np.random.default_rng((self.seed, epoch))
        cut = _cut(starts, lengths, documents, first.block_size, random)
        chunks = Chunks(*map(np.concatenate, zip(stay, cut, strict=True)))
        chunks = chunks.select(random.permutation(len(chunks.lengths)))
        shared = first.tokens, first.counted, first.block_size, first.pad_id
        return pack_chunks(chunks, *shared, self.packing)


def _cut(
    starts: Integers,
    lengths: Integers,
    documents: Integers,
    block_size: int,
    random: np.random.Generator,
) -> Chunks:
    """Cut documents, each longer than a block, after a random number of tokens."""
    offsets = random.integers(2, block_size, len(lengths), endpoint=True)
    # A final chunk of a single token would have no label.
    offsets -= lengths - offsets == 1
    rest = chunk_lengths(lengths - offsets, block_size)
    counts = 1 + -(-(lengths - offsets) // block_size)
    heads = np.cumsum(counts) - counts
    sizes = np.empty(int(counts.sum()), np.int64)
    is_head = np.zeros(len(sizes), np.bool_)
    is_head[heads] = True
    sizes[is_head], sizes[~is_head] = offsets, rest
    places = np.cumsum(sizes) - sizes
    places += np.repeat(starts - places[heads], counts)
    return Chunks(places, sizes, places + 1, np.repeat(documents, counts))
