"""Tokens of documents in temporary files, between tokenizing and packing."""

import tempfile
from collections import Counter
from pathlib import Path

import numpy as np

from lit_entrodrop.data.packing.array_files import pieces_of, save_array
from lit_entrodrop.data.packing.best_fit import pack_chunks
from lit_entrodrop.data.packing.blocks import PackedBlocks
from lit_entrodrop.data.packing.chunking import Chunks, Integers, chunk_documents, count_cuts
from lit_entrodrop.data.tokenizing import TokenizedDocuments


class TokenFiles:
    """Chunks of documents: their positions in memory, their tokens in temporary files.

    Args:
        block_size: Number of tokens in a block, at least 2.
        folder: Path to the folder of the temporary files; by default that of the system.
        least_context: Number of tokens before a label of a long prompt or chat; by default half a
            block.
    """

    def __init__(
        self, block_size: int, folder: Path | None = None, least_context: int | None = None
    ) -> None:
        self.block_size = block_size
        self.least_context = least_context
        self.num_documents = self.num_tokens = 0
        self.cuts: Counter[str] = Counter()
        self._tokens = tempfile.TemporaryFile(dir=folder)  # noqa: SIM115 (it is kept)
        self._counted = tempfile.TemporaryFile(dir=folder)  # noqa: SIM115
        self._dtype = np.dtype(np.uint16)
        self._chunks: list[Chunks] = []

    def append(self, documents: TokenizedDocuments) -> None:
        """Append documents, each with at least one token."""
        if not len(documents.lengths):
            return
        chunks = chunk_documents(
            documents.lengths, documents.counted, self.block_size, self.least_context
        )
        starts, lengths, first_labels, numbers = chunks
        first = self.num_tokens
        self._chunks.append(
            Chunks(starts + first, lengths, first_labels + first, numbers + self.num_documents)
        )
        self.cuts.update(count_cuts(chunks, documents.lengths, documents.counted, self.block_size))
        self._tokens.write(documents.tokens.astype(np.uint32).data)
        self._counted.write(documents.counted.data)
        self._dtype = np.promote_types(self._dtype, np.min_scalar_type(documents.tokens.max()))
        self.num_tokens += len(documents.tokens)
        self.num_documents += len(documents.lengths)

    def pack(
        self,
        pad_id: int,
        packing: bool = True,
        folder: Path | None = None,
        groups: Integers | None = None,
    ) -> PackedBlocks:
        """Pack all documents; their arrays are in memory, or in files of a folder.

        The other arguments are those of `pack_chunks`; `groups` has the group of each document.
        """
        for file in (self._tokens, self._counted):
            file.flush()
        tokens = pieces_of(np.memmap(self._tokens, np.uint32, "r"))
        chunks = Chunks(*map(np.concatenate, zip(*self._chunks, strict=True)))
        packed = pack_chunks(
            chunks,
            save_array((piece.astype(self._dtype) for piece in tokens), "tokens", folder),
            save_array(pieces_of(np.memmap(self._counted, np.bool_, "r")), "counted", folder),
            self.block_size,
            pad_id,
            packing,
            None if groups is None else groups[chunks.documents],
        )
        if folder:
            arrays = packed.chunks._asdict()
            for name, values in {**arrays, "block_starts": packed.block_starts}.items():
                save_array([values], name, folder)
        return packed
