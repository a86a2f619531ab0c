"""Documents in a temporary file, so that memory does not grow with the corpus."""

import hashlib
import pickle
import tempfile
from array import array
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from io import BufferedWriter, FileIO
from pathlib import Path
from typing import overload

import numpy as np
from numpy.typing import NDArray

from lit_entrodrop.data.documents import Document, Kind
from lit_entrodrop.runtime.progress import track


@dataclass(frozen=True, eq=False)
class StoredDocuments(Sequence[Document]):
    """Documents in a temporary file, in any order; each takes 27 bytes of memory.

    Attributes:
        file: The temporary file, which is deleted with the last reference to it.
        starts: Offset of each document in the file, [documents] int64.
        sizes: Bytes of each document in the file, [documents] int64.
        digests: Seeded hash of the kind and content of each document, [documents] uint64.
        sources: Number of the source of each document, [documents] uint16.
        kinds: Kinds of the documents, and perhaps of others in the file.
        formats: Number of the format of each document in `format_names`, [documents] uint8.
        format_names: Names of the formats.
    """

    file: FileIO
    starts: NDArray[np.int64]
    sizes: NDArray[np.int64]
    digests: NDArray[np.uint64]
    sources: NDArray[np.uint16]
    kinds: frozenset[Kind]
    formats: NDArray[np.uint8]
    format_names: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.starts)

    @overload
    def __getitem__(self, index: int) -> Document: ...
    @overload
    def __getitem__(self, index: slice) -> "StoredDocuments": ...
    def __getitem__(self, index: int | slice) -> "Document | StoredDocuments":
        if isinstance(index, slice):
            return self.select(index)
        self.file.seek(int(self.starts[index]))
        return Document(*pickle.loads(self.file.read(int(self.sizes[index]))))

    def select(self, chosen: slice | NDArray[np.integer] | NDArray[np.bool_]) -> "StoredDocuments":
        """Return some documents, by a slice, their indices or a mask."""
        arrays = ("starts", "sizes", "digests", "sources", "formats")
        return replace(self, **{name: getattr(self, name)[chosen] for name in arrays})

    def count_formats(self) -> dict[str, int]:
        """Count the documents by the format of their records."""
        counts = np.bincount(self.formats, minlength=len(self.format_names)).tolist()
        named = zip(self.format_names, counts, strict=True)
        return {name: count for name, count in sorted(named) if count}

    def is_in(self, others: "StoredDocuments") -> NDArray[np.bool_]:
        """Return which documents equal one of others that have the same seed, [documents] bool."""
        return np.isin(self.digests, others.digests)


def store_documents(
    documents: Iterable[Document], seed: int, folder: Path | None = None
) -> StoredDocuments:
    """Write documents to a temporary file.

    Args:
        documents: The documents; they are read once, one at a time.
        seed: Seed of their digests.
        folder: Path to the folder of the file; by default that of temporary files.

    >>> stored = store_documents([Document("text", "Fever."), Document("text", "Cough.")], seed=0)
    >>> stored[1], len(stored[1:])
    (Document(kind='text', content='Cough.'), 1)
    """
    file = tempfile.TemporaryFile(dir=folder, buffering=0)  # noqa: SIM115 (it is kept)
    writer, sizes, digests, kinds = BufferedWriter(file), array("q"), array("Q"), set[Kind]()
    sources, formats, numbers = array("H"), array("B"), dict[str, int]()
    for document in track(documents, "Reading", unit="documents"):
        content = (document.kind, document.content, document.where, document.format)
        sizes.append(writer.write(pickle.dumps(content, pickle.HIGHEST_PROTOCOL)))
        digests.append(digest_document(document, seed))
        sources.append(document.source)
        kinds.add(document.kind)
        formats.append(numbers.setdefault(document.format, len(numbers)))
    writer.detach()
    bytes_of = np.array(sizes, dtype=np.int64)
    return StoredDocuments(
        file,
        np.cumsum(bytes_of) - bytes_of,
        bytes_of,
        np.array(digests, dtype=np.uint64),
        np.array(sources, dtype=np.uint16),
        frozenset(kinds),
        np.array(formats, dtype=np.uint8),
        tuple(numbers),
    )


def digest_document(document: Document, seed: int) -> int:
    """Hash the seed, the kind and the content of a document, to 64 bits.

    >>> round(digest_document(Document("text", "Fever."), seed=0) / 2**64, 4)
    0.5439
    """
    content = f"{seed}\n{document.kind}\n{document.content}".encode()
    return int.from_bytes(hashlib.blake2b(content, digest_size=8).digest(), "big")
