"""Packed blocks: stored as compact arrays, read as rows of a batch."""

import hashlib
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset

from lit_entrodrop.data.array_files import pieces_of
from lit_entrodrop.data.chunking import Integers, gather_chunks
from regularizers.functional import IGNORE_INDEX

PADDING_BLOCK = -1


@dataclass(frozen=True, eq=False)
class PackedBlocks(Dataset[dict[str, Tensor]]):
    """Blocks of one split; the arrays may be memory-mapped.

    Attributes:
        tokens: Tokens in the order of blocks and chunks, without padding, [tokens] unsigned.
        counted: Whether the loss counts each token as a label, [tokens] bool.
        chunk_starts: Index of each chunk's first token, then the total, [chunks + 1] int64.
        block_starts: Index of each block's first chunk, then the total, [blocks + 1] int64.
        documents: Number of the document that each chunk is part of, [chunks] int64.
        block_size: Number of tokens in a block.
        pad_id: Token that fills the tail of a block.
    """

    tokens: NDArray[np.unsignedinteger]
    counted: NDArray[np.bool_]
    chunk_starts: Integers
    block_starts: Integers
    documents: Integers
    block_size: int
    pad_id: int

    def __len__(self) -> int:
        return len(self.block_starts) - 1

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        """Build one row of a batch; -1 gives a block of padding only.

        Returns:
            int64 tensors of shape [block_size]: `input_ids`; `labels`, not shifted, -100 where not
            counted; `position_ids`, from 0 in each document and in the padded tail; `document_ids`,
            from 0 in each row and -1 for padding. Also `block_id`, a scalar: the index.
        """
        starts = self._chunks_of(index)
        lengths = np.diff(starts)
        runs = np.append(lengths, self.block_size - lengths.sum())
        filled = slice(0, int(lengths.sum()))
        input_ids = np.full(self.block_size, self.pad_id, dtype=np.int64)
        labels = np.full(self.block_size, IGNORE_INDEX, dtype=np.int64)
        document_ids = np.full(self.block_size, -1, dtype=np.int64)
        input_ids[filled] = self.tokens[starts[0] : starts[-1]]
        labels[filled] = np.where(
            self.counted[starts[0] : starts[-1]], input_ids[filled], IGNORE_INDEX
        )
        document_ids[filled] = np.repeat(np.arange(len(lengths)), lengths)
        row = {
            "input_ids": input_ids,
            "labels": labels,
            "position_ids": np.arange(self.block_size) - np.repeat(np.cumsum(runs) - runs, runs),
            "document_ids": document_ids,
            "block_id": np.array(index),
        }
        return {name: torch.from_numpy(values) for name, values in row.items()}

    def _chunks_of(self, index: int) -> Integers:
        if index == PADDING_BLOCK:
            return np.zeros(1, dtype=np.int64)
        if not 0 <= index < len(self):
            raise IndexError(f"expected a block in -1..{len(self) - 1}, got {index}")
        first, last = self.block_starts[index : index + 2]
        return np.asarray(self.chunk_starts[first : last + 1])

    def select(self, indices: Integers) -> "PackedBlocks":
        """Return the blocks of some distinct numbers, renumbered from 0."""
        chunks = gather_chunks(self.block_starts[indices], np.diff(self.block_starts)[indices])
        lengths = np.diff(self.chunk_starts)[chunks]
        tokens = gather_chunks(self.chunk_starts[chunks], lengths)
        return PackedBlocks(
            self.tokens[tokens],
            self.counted[tokens],
            np.append(0, np.cumsum(lengths)),
            np.append(0, np.cumsum(np.diff(self.block_starts)[indices])),
            self.documents[chunks],
            self.block_size,
            self.pad_id,
        )

    def label_mask(self, rows: slice) -> NDArray[np.bool_]:
        """Return which tokens of some consecutive blocks are labels, [blocks, block_size] bool."""
        starts = self.block_starts[rows.start : rows.stop + 1]
        ends = self.chunk_starts[starts]
        mask = np.arange(self.block_size) < np.diff(ends)[:, None]
        mask[mask] = self.counted[ends[0] : ends[-1]]
        return mask

    def document_numbers(self, block_id: Tensor, document_ids: Tensor) -> Tensor:
        """Return the document number, within the split, of each token.

        Arguments and shape are those of `chunk_numbers`. Chunks of a document share its number.
        """
        chunks = self.chunk_numbers(block_id, document_ids)
        numbers = torch.from_numpy(np.asarray(self.documents[chunks.clamp(min=0).numpy()]))
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
        return (first[:, None] + document_ids).masked_fill(document_ids < 0, -1)

    @property
    def num_documents(self) -> int:
        """Number of documents in the blocks; document numbers are below it."""
        return int(self.documents.max()) + 1

    @property
    def num_chunks(self) -> int:
        """Number of chunks in all blocks."""
        return len(self.chunk_starts) - 1

    @property
    def padding(self) -> float:
        """Share of padding among all positions, in [0, 1)."""
        return 1 - len(self.tokens) / (len(self) * self.block_size)

    @cached_property
    def fingerprint(self) -> str:
        """Hash of everything that determines rows and document numbers, 32 hexadecimal digits."""
        # Cached: it reads all tokens, and every checkpoint and evaluation needs it.
        digest = hashlib.blake2b(f"{self.block_size} {self.pad_id}".encode(), digest_size=16)
        chunks = (self.chunk_starts, self.block_starts, self.documents)
        for array in (self.tokens, self.counted, *chunks):
            digest.update(f"{array.dtype} {array.shape}".encode())
            for piece in pieces_of(array):
                digest.update(piece.data)
        return digest.hexdigest()
