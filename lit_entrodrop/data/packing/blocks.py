"""Packed blocks: stored as compact arrays, read as rows of a batch."""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset

from lit_entrodrop.data.packing.array_files import PIECE, release_pages
from lit_entrodrop.data.packing.chunking import Chunks, Flags, Integers, gather_chunks
from regularizers.functional import IGNORE_INDEX

PADDING_BLOCK = -1


class Block(NamedTuple):
    """One block: its number, -1 for a block of padding, and its chunks."""

    number: int
    chunks: Chunks


@dataclass(frozen=True, eq=False)
class PackedBlocks(Dataset[dict[str, Tensor]]):
    """Blocks of one split; the arrays may be memory-mapped.

    Blocks consist of chunks, which refer to tokens. Other cuts of the same documents share them.

    Attributes:
        tokens: Tokens of the documents, one document after another, [tokens] unsigned.
        counted: Whether the loss counts each token, unless it is before the first label of a chunk,
            [tokens] bool.
        chunks: Chunks in the order of the blocks.
        block_starts: Index of each block's first chunk, then the total, [blocks + 1] int64.
        block_size: Number of tokens in a block.
        pad_id: Token that fills the tail of a block.
    """

    tokens: NDArray[np.unsignedinteger]
    counted: Flags
    chunks: Chunks
    block_starts: Integers
    block_size: int
    pad_id: int

    def __len__(self) -> int:
        return len(self.block_starts) - 1

    def __getitem__(self, index: int | Block) -> dict[str, Tensor]:
        """Build one row of a batch; -1 gives a block of padding only.

        Returns:
            int64 tensors of shape [block_size]: `input_ids`; `labels`, not shifted, -100 where not
            counted; `position_ids`, from 0 in each document and in the padded tail; `document_ids`,
            from 0 in each row and -1 for padding. Also `block_id`, a scalar: the index. For a
            `Block`, also `token_index`: the index in `tokens`, -1 for padding.
        """
        number, chunks = block = index if isinstance(index, Block) else self.block(index)
        places, counts = self._places(chunks)
        runs = np.append(chunks.lengths, self.block_size - len(places))
        filled = slice(0, len(places))
        input_ids = np.full(self.block_size, self.pad_id, dtype=np.int64)
        labels = np.full(self.block_size, IGNORE_INDEX, dtype=np.int64)
        document_ids = np.full(self.block_size, -1, dtype=np.int64)
        input_ids[filled] = self.tokens[places]
        labels[filled] = np.where(counts, input_ids[filled], IGNORE_INDEX)
        document_ids[filled] = np.repeat(np.arange(len(chunks.lengths)), chunks.lengths)
        row = {
            "input_ids": input_ids,
            "labels": labels,
            "position_ids": np.arange(self.block_size) - np.repeat(np.cumsum(runs) - runs, runs),
            "document_ids": document_ids,
            "block_id": np.array(number),
        }
        if block is index:
            row["token_index"] = np.pad(places, (0, int(runs[-1])), constant_values=-1)
        return {name: torch.from_numpy(values) for name, values in row.items()}

    def block(self, number: int) -> Block:
        """Return the block of a number; -1 gives a block without chunks."""
        if not PADDING_BLOCK <= number < len(self):
            raise IndexError(f"expected a block in -1..{len(self) - 1}, got {number}")
        first, last = (0, 0) if number == PADDING_BLOCK else self.block_starts[number : number + 2]
        return Block(number, self.chunks.select(slice(first, last)))

    def select(self, indices: Integers) -> "PackedBlocks":
        """Return the blocks of some distinct numbers, renumbered from 0."""
        sizes = np.diff(self.block_starts)[indices]
        chunks = self.chunks.select(gather_chunks(self.block_starts[indices], sizes))
        starts = np.append(0, np.cumsum(sizes))
        return PackedBlocks(self.tokens, self.counted, chunks, starts, self.block_size, self.pad_id)

    def token_indices(self, numbers: Tensor) -> Tensor:
        """Return the index of each token of some blocks, [blocks, block_size]; -1 for padding."""
        rows = [self[self.block(number)]["token_index"] for number in numbers.tolist()]
        return torch.stack(rows)

    def label_mask(self, rows: slice) -> Flags:
        """Return which tokens of some consecutive blocks are labels, [blocks, block_size] bool."""
        starts = self.block_starts[rows.start : rows.stop + 1]
        ends = self.chunk_starts[starts]
        mask: Flags = np.arange(self.block_size) < np.diff(ends)[:, None]
        _, mask[mask] = self._places(self.chunks.select(slice(starts[0], starts[-1])))
        return mask

    def gather(self) -> tuple[NDArray[np.unsignedinteger], Flags]:
        """Return all tokens in the order of the blocks, and whether each is a label, in memory."""
        places, labels = self._places(self.chunks)
        return self.tokens[places], labels

    def token_counts(self, vocabulary_size: int) -> Tensor:
        """Return how often each token id occurs, [vocabulary_size] int64, without padding."""
        counts = np.zeros(vocabulary_size, np.int64)
        for chunks in self._pieces(self.tokens):
            tokens = self.tokens[gather_chunks(chunks.starts, chunks.lengths)]
            counts += np.bincount(tokens, minlength=vocabulary_size)
        return torch.from_numpy(counts)

    def document_numbers(self, block_id: Tensor, document_ids: Tensor) -> Tensor:
        """Return the document number, within the split, of each token.

        Arguments and shape are those of `chunk_numbers`. Chunks of a document share its number.
        """
        chunks = self.chunk_numbers(block_id, document_ids)
        numbers = torch.from_numpy(self.chunks.documents[chunks.clamp(min=0).numpy()])
        return numbers.masked_fill(document_ids < 0, -1)

    def chunk_numbers(self, block_id: Tensor, document_ids: Tensor) -> Tensor:
        """Return the chunk number, within the split, of each token.

        Args:
            block_id: Block numbers, [batch] int64 in host memory; -1 for a block of padding.
            document_ids: Document numbers in the row, [batch, block_size] int64; -1 for padding.

        Returns:
            Tensor [batch, block_size] int64; -1 for padding.
        """
        first = torch.from_numpy(np.asarray(self.block_starts[block_id.clamp(min=0).numpy()]))
        padding = (document_ids < 0) | (block_id < 0)[:, None]
        return (first[:, None] + document_ids).masked_fill(padding, -1)

    def chunks_of_labels(self, token_index: Tensor) -> Tensor:
        """Return the number of the chunk in which each token is a label, of the same shape.

        For other tokens it is that of the last label before; -1 if there is none, and for padding.
        """
        order, firsts = self._by_first_label
        places = np.searchsorted(firsts, token_index.numpy(), side="right")
        return torch.from_numpy(order[places])

    @cached_property
    def _by_first_label(self) -> tuple[Integers, Integers]:
        order = np.argsort(self.chunks.first_labels)
        return np.append(-1, order), self.chunks.first_labels[order]

    @cached_property
    def chunk_starts(self) -> Integers:
        """Tokens in blocks before each chunk, then the total, [chunks + 1] int64."""
        return np.append(0, np.cumsum(self.chunks.lengths))

    @cached_property
    def labels_per_chunk(self) -> Integers:
        """Number of labels in each chunk, [chunks] int64."""
        counts = [
            np.add.reduceat(
                self._places(chunks)[1], np.cumsum(chunks.lengths) - chunks.lengths, dtype=np.int64
            )
            for chunks in self._pieces(self.counted)
        ]
        return np.concatenate(counts)

    @property
    def num_documents(self) -> int:
        """Number of documents in the blocks; document numbers are below it."""
        return int(self.chunks.documents.max()) + 1

    @property
    def num_chunks(self) -> int:
        """Number of chunks in all blocks."""
        return len(self.chunks.lengths)

    @property
    def num_tokens(self) -> int:
        """Number of tokens in all blocks, without padding."""
        return int(self.chunk_starts[-1])

    @property
    def padding(self) -> float:
        """Share of padding among all positions, in [0, 1)."""
        return 1 - self.num_tokens / (len(self) * self.block_size)

    @cached_property
    def fingerprint(self) -> str:
        """Hash of everything that determines rows and document numbers, 32 hexadecimal digits."""
        # Cached: it reads all tokens, and every checkpoint and evaluation needs it.
        digest = hashlib.blake2b(f"{self.block_size} {self.pad_id}".encode(), digest_size=16)
        digest.update(f"{self.tokens.dtype} ({self.num_tokens},)".encode())
        for chunks in self._pieces(self.tokens):
            digest.update(self.tokens[gather_chunks(chunks.starts, chunks.lengths)].data)
        digest.update(f"bool ({self.num_tokens},)".encode())
        for chunks in self._pieces(self.counted):
            digest.update(self._places(chunks)[1].data)
        for array in (self.chunk_starts, self.block_starts, self.chunks.documents):
            digest.update(f"{array.dtype} {array.shape}".encode())
            digest.update(np.ascontiguousarray(array).data)
        return digest.hexdigest()

    def _places(self, chunks: Chunks) -> tuple[Integers, Flags]:
        """Return the index of each token of some chunks, and whether it is a label."""
        places = gather_chunks(chunks.starts, chunks.lengths)
        within = places >= np.repeat(chunks.first_labels, chunks.lengths)
        return places, self.counted[places] & within

    def _pieces(self, values: NDArray[Any]) -> Iterator[Chunks]:
        """Yield some chunks at a time, and release the pages of the values that they refer to."""
        cuts = np.searchsorted(self.chunk_starts, np.arange(0, self.num_tokens, PIECE))
        for first, last in pairwise(np.unique(np.append(cuts, self.num_chunks)).tolist()):
            yield self.chunks.select(slice(first, last))
            release_pages(values)
