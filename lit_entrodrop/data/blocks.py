"""Packed blocks: compact arrays on one side, rows of a batch on the other."""

import hashlib
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset

from lit_entrodrop.data.packing import (
    Integers,
    best_fit_decreasing,
    chunk_documents,
    documents_of_chunks,
    gather_chunks,
)
from lit_entrodrop.data.tokenizing import TokenizedDocuments
from regularizers.functional import IGNORE_INDEX

PADDING_BLOCK = -1


@dataclass(frozen=True, eq=False)
class PackedBlocks(Dataset[dict[str, Tensor]]):
    """Hold the blocks of one split; arrays may be memory-mapped.

    Attributes:
        tokens: [tokens] unsigned integers, chunk after chunk, block after block, no padding.
        counted: [tokens] bool, whether the loss counts the token as a label.
        chunk_starts: [chunks + 1] int64, index of each chunk's first token.
        block_starts: [blocks + 1] int64, index of each block's first chunk.
        documents: [chunks] int64, the document that each chunk is cut from.
        block_size: Tokens in a block.
        pad_id: Token that fills the tail.
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
        """Build one row of a batch.

        Args:
            index: Block in 0..len(self)-1, or -1 for a block of padding only.

        Returns:
            int64 tensors of shape [block_size]: input_ids; labels, not shifted, -100 where not
            counted; position_ids, from 0 in each document and in the padded tail; document_ids,
            from 0 in each row and -1 for padding. And block_id, a scalar: the index itself.
        """
        starts = self._chunks_of(index)
        lengths = np.diff(starts)
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
            "position_ids": self._positions(lengths),
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

    def _positions(self, lengths: Integers) -> Integers:
        tail = self.block_size - lengths.sum()
        lengths = np.append(lengths, tail)
        starts = np.cumsum(lengths) - lengths
        return np.arange(self.block_size) - np.repeat(starts, lengths)

    def select(self, indices: Integers) -> "PackedBlocks":
        """Return some of the blocks, numbered anew.

        Args:
            indices: [blocks] int64, each once.
        """
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

    def document_numbers(self, block_id: Tensor, document_ids: Tensor) -> Tensor:
        """Return the number, within the split, of each token's document.

        Args:
            block_id: [batch] int64, in host memory; -1 for a block of padding.
            document_ids: [batch, block_size] int64, numbers within the row, -1 for padding.

        Returns:
            [batch, block_size] int64, -1 for padding; chunks of one document share its number.
        """
        chunks = self.chunk_numbers(block_id, document_ids)
        numbers = torch.from_numpy(np.asarray(self.documents[chunks.clamp(min=0).numpy()]))
        return numbers.masked_fill(document_ids < 0, -1)

    def chunk_numbers(self, block_id: Tensor, document_ids: Tensor) -> Tensor:
        """Return the number, within the split, of each token's chunk.

        Args:
            block_id: [batch] int64, in host memory; -1 for a block of padding.
            document_ids: [batch, block_size] int64, numbers within the row, -1 for padding.

        Returns:
            [batch, block_size] int64, -1 for padding.
        """
        first = torch.from_numpy(np.asarray(self.block_starts[block_id.clamp(min=0).numpy()]))
        return (first[:, None] + document_ids).masked_fill(document_ids < 0, -1)

    @property
    def num_documents(self) -> int:
        """Documents of which there are tokens; their numbers are below."""
        return int(self.documents.max()) + 1

    @property
    def num_chunks(self) -> int:
        """Chunks in all blocks."""
        return len(self.chunk_starts) - 1

    @property
    def padding(self) -> float:
        """Share of the places that hold padding, in [0, 1)."""
        return 1 - len(self.tokens) / (len(self) * self.block_size)

    def fingerprint(self) -> str:
        """Hash all that decides the content of the rows, and whose documents they hold.

        Returns:
            32 hexadecimal digits.
        """
        return self._fingerprint

    @cached_property
    def _fingerprint(self) -> str:
        # Each checkpoint and each evaluation asks for it, and all tokens are read for it.
        digest = hashlib.blake2b(f"{self.block_size} {self.pad_id}".encode(), digest_size=16)
        chunks = (self.chunk_starts, self.block_starts, self.documents)
        for array in (self.tokens, self.counted, *chunks):
            digest.update(f"{array.dtype} {array.shape}".encode())
            digest.update(array.data)
        return digest.hexdigest()


def pack_documents(
    documents: TokenizedDocuments, block_size: int, pad_id: int, packing: bool = True
) -> PackedBlocks:
    """Cut documents into chunks and lay them into blocks.

    The first token of a chunk is never counted: within its chunk, nothing predicts it.

    Args:
        documents: Tokenised documents, each with at least one token.
        block_size: Tokens in a block, at least 2.
        pad_id: Token that fills the tail of a block.
        packing: Fill blocks by best-fit decreasing; otherwise one chunk a block.

    Returns:
        The blocks.

    >>> ids, everywhere = np.arange(8, dtype=np.uint16), np.ones(8, dtype=bool)
    >>> documents = TokenizedDocuments(ids, everywhere, np.array([3, 5]))
    >>> pack_documents(documents, block_size=8, pad_id=0)[0]["labels"].tolist()
    [-100, 1, 2, -100, 4, 5, 6, 7]
    """
    lengths = chunk_documents(documents.lengths, block_size)
    starts = np.cumsum(lengths) - lengths
    blocks = best_fit_decreasing(lengths, block_size) if packing else np.arange(len(lengths))
    order = np.argsort(blocks, kind="stable")
    indices = gather_chunks(starts[order], lengths[order])
    chunk_starts = np.append(0, np.cumsum(lengths[order]))
    counted = documents.counted[indices]
    counted[chunk_starts[:-1]] = False
    block_starts = np.append(0, np.cumsum(np.bincount(blocks)))
    numbers = documents_of_chunks(documents.lengths, block_size)[order]
    return PackedBlocks(
        documents.tokens[indices], counted, chunk_starts, block_starts, numbers, block_size, pad_id
    )
