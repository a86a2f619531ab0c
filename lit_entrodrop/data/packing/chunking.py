"""Cut documents that are longer than a block into chunks."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from lit_entrodrop.data.adjustments import CONTINUED, CUT, NEAREST_CONTEXT, TOO_FAR

Integers = NDArray[np.int64]
Flags = NDArray[np.bool_]


class Chunks(NamedTuple):
    """Chunks of documents.

    Attributes:
        starts: Index of the first token of each chunk, [chunks] int64.
        lengths: Number of tokens in each chunk, [chunks] int64.
        first_labels: Index of the first token of each chunk that may be a label, [chunks] int64.
        documents: Number of the document of each chunk, [chunks] int64.
    """

    starts: Integers
    lengths: Integers
    first_labels: Integers
    documents: Integers

    def select(self, chosen: slice | Integers | Flags) -> "Chunks":
        """Return some chunks, by a slice, their indices or a mask."""
        return Chunks(*(values[chosen] for values in self))


def chunk_documents(
    lengths: Integers, counted: Flags, block_size: int, least_context: int | None = None
) -> Chunks:
    """Cut every document into chunks of at most `block_size` tokens.

    A document in which every token is counted, plain text, is cut into consecutive chunks. The
    first token of a chunk is no label, as nothing in the chunk predicts it.

    In other documents, prompts and chats, each label is in one chunk, after as much of its nearest
    context as fits: at least `least_context` tokens if the document has them. Chunks may share
    context. Text too far from any label is left out, so that every chunk has a label.

    Args:
        lengths: Number of tokens in each document, [documents] int64, at least 1.
        counted: Whether each token is counted, [tokens] bool.
        block_size: Number of tokens in a block, at least 2.
        least_context: Number of tokens before a label, from 1 to below `block_size`; by default
            half a block.

    >>> counted = np.array([True] * 9 + [False] * 7 + [True] * 2)
    >>> chunks = chunk_documents(np.array([9, 9]), counted, block_size=4)
    >>> chunks.starts.tolist(), chunks.lengths.tolist(), chunks.first_labels.tolist()
    ([0, 4, 7, 14], [4, 3, 2, 4], [1, 5, 8, 16])
    """
    starts = np.cumsum(lengths) - lengths
    windowed = in_windows(lengths, counted, block_size)
    plain = np.flatnonzero(~windowed)
    pieces = chunk_lengths(lengths[plain], block_size)
    documents = np.repeat(plain, -(-lengths[plain] // block_size))
    # Tokens of windowed documents before each chunk.
    skipped = np.cumsum(lengths * windowed)[documents]
    places = np.cumsum(pieces) - pieces + skipped
    # Blocks of 2: the last token of an odd number repeats the one before it, which predicts it.
    alone = (pieces == 1) & (lengths[documents] > 1)
    places, pieces = places - alone, pieces + alone
    windows = [
        (start + first, size, start + label, document)
        for document in np.flatnonzero(windowed)
        for start, end in [(starts[document], starts[document] + lengths[document])]
        for first, size, label in label_windows(counted[start:end], block_size, least_context)
    ]
    rows = np.array(windows, np.int64).reshape(-1, 4)
    chunks = np.concatenate([np.stack([places, pieces, places + 1, documents], axis=1), rows])
    return Chunks(*chunks[np.argsort(chunks[:, 3], kind="stable")].T)


def label_windows(
    counted: Flags, block_size: int, least_context: int | None = None
) -> list[tuple[int, int, int]]:
    """Cover the labels of a document with windows that begin with context.

    Args:
        counted: Whether each token of the document is counted, [tokens] bool.
        block_size: Maximum number of tokens in a window, at least 2.
        least_context: Number of tokens before a label, if the document has them; by default half a
            block.

    Returns:
        Start, length and first label of each window; its labels end with the window.

    >>> label_windows(np.arange(10) >= 8, block_size=4)
    [(6, 4, 8)]
    """
    context = block_size // 2 if least_context is None else least_context
    labels = 1 + np.flatnonzero(counted[1:])
    windows, done = [], 0
    while done < len(labels):
        first = int(labels[done])
        limit = max(0, first - context) + block_size
        done = int(np.searchsorted(labels, limit))
        end = int(labels[done - 1]) + 1
        start = max(0, end - block_size)
        windows.append((start, end - start, first))
    return windows


def in_windows(lengths: Integers, counted: Flags, block_size: int) -> Flags:
    """Return which documents are covered with label windows, [documents] bool.

    >>> in_windows(np.array([2, 2, 1]), np.array([True, True, False, True, False]), 1).tolist()
    [False, True, False]
    """
    ends = np.cumsum(lengths)
    before = np.append(0, np.cumsum(~counted))
    return np.asarray((lengths > block_size) & (before[ends] > before[ends - lengths]))


def count_cuts(
    chunks: Chunks, lengths: Integers, counted: Flags, block_size: int
) -> dict[str, int]:
    """Count what `chunk_documents` cut, by reason.

    >>> lengths, counted = np.array([3, 5]), np.ones(8, bool)
    >>> chunks = chunk_documents(lengths, counted, block_size=4)
    >>> count_cuts(chunks, lengths, counted, block_size=4)[CUT]
    1
    """
    windowed = in_windows(lengths, counted, block_size)
    starts, sizes, _, documents = (values[windowed[chunks.documents]] for values in chunks)
    # Windows of a document overlap only with their neighbors.
    again = documents[1:] == documents[:-1]
    shared = (starts[:-1] + sizes[:-1] - starts[1:])[again]
    covered = int(sizes.sum() - np.maximum(shared, 0).sum())
    return {
        CUT: int((lengths > block_size).sum() - windowed.sum()),
        NEAREST_CONTEXT: int(windowed.sum()),
        CONTINUED: len(np.unique(documents[1:][again])),
        TOO_FAR: int(lengths[windowed].sum()) - covered,
    }


def gather_chunks(starts: Integers, lengths: Integers) -> Integers:
    """Return the token indices of concatenated chunks, [lengths.sum()] int64.

    >>> gather_chunks(np.array([5, 0]), np.array([2, 3])).tolist()
    [5, 6, 0, 1, 2]
    """
    ends = np.cumsum(lengths)
    return np.repeat(starts - ends + lengths, lengths) + np.arange(int(lengths.sum()))


def chunk_lengths(lengths: Integers, block_size: int) -> Integers:
    """Return the lengths of consecutive chunks.

    A final chunk of a single token could have no label, as no token precedes it. The chunk before
    it therefore gives up its last token, unless that would leave it a single token too.
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
