"""Sources of a corpus: a file, a folder, `hub:…` or `registry:…`."""

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cache
from itertools import chain
from pathlib import Path
from typing import Any

from lit_entrodrop.data.arrow_rows import without_added_nulls
from lit_entrodrop.data.documents import Document, digest_documents, document_from_row
from lit_entrodrop.data.file_formats import read_file, supported_formats

HUB, REGISTRY = "hub:", "registry:"
PIECE = 2**20  # bytes


def read_corpus(sources: Sequence[str], text_column: str) -> Iterator[Document]:
    """Yield the documents of files, folders, `hub:org/name[:config]` or `registry:NAME`, in order.

    Raises:
        FileNotFoundError: If a path does not exist.
        ValueError: If a source cannot be read; the message names the place and the remedy.
    """
    for source in sources:
        yield from _read_source(source, text_column)


def digest_corpus(sources: Sequence[str], text_column: str) -> str:
    """Hash the content of all sources, without parsing local files, 32 hexadecimal digits.

    The hash depends on the bytes and order of files, not on their names.
    """
    digest = hashlib.blake2b(digest_size=16)
    for source in sources:
        digest.update(_digest_source(source, text_column).encode())
    return digest.hexdigest()


def list_files(path: Path) -> list[Path]:
    """List the supported files of a path, sorted; hidden entries of a folder are left out.

    Raises:
        FileNotFoundError: If the path does not exist.
        ValueError: If the suffix is unknown, or the folder contains no supported file.
    """
    known = ", ".join(supported_formats())
    if path.is_file():
        if path.suffix in supported_formats():
            return [path]
        raise ValueError(
            f"{path}: expected one of the suffixes {known}, got {path.suffix!r}. "
            "Rename or convert the file."
        )
    if not path.is_dir():
        raise FileNotFoundError(
            f"{path} does not exist: expected a file, a folder, 'hub:org/name' or 'registry:NAME'. "
            "Check the path, which is relative to the working directory."
        )
    files = [
        file
        for file in sorted(path.rglob("*"))
        if file.suffix in supported_formats()
        and not any(part.startswith(".") for part in file.relative_to(path).parts)
    ]
    if not files:
        raise ValueError(f"{path} contains no supported file: expected one of {known}. Add one.")
    return files


def _read_source(source: str, text_column: str) -> Iterator[Document]:
    if source.startswith(REGISTRY):
        return _read_registry(source.removeprefix(REGISTRY))
    if source.startswith(HUB):
        return _read_hub(source.removeprefix(HUB), text_column)
    files = list_files(Path(source).expanduser())
    alone = len(files) == 1
    return chain.from_iterable(read_file(file, text_column, alone) for file in files)


def _read_registry(name: str) -> Iterator[Document]:
    return (Document("text", text) for text in _load_corpus(name))


def _read_hub(name: str, text_column: str) -> Iterator[Document]:
    for number, row in enumerate(_load_dataset(name), start=1):
        yield document_from_row(without_added_nulls(row), text_column, f"{HUB}{name} row {number}")


# Cached because the corpus is read twice: to hash it, then to pack it.
@cache
def _load_corpus(name: str) -> list[str]:
    from lit_entrodrop.data.corpora.registry import load_corpus

    return load_corpus(name)


@cache
def _load_dataset(name: str) -> Iterable[Mapping[str, Any]]:
    from datasets import load_dataset

    path, _, config = name.partition(":")
    rows: Iterable[Mapping[str, Any]] = load_dataset(path, config or None, split="train")
    return rows


def _digest_source(source: str, text_column: str) -> str:
    if source.startswith((REGISTRY, HUB)):
        return digest_documents(_read_source(source, text_column))
    digest = hashlib.blake2b(digest_size=16)
    for file in list_files(Path(source).expanduser()):
        digest.update(f"{file.suffix} {file.stat().st_size}\n".encode())
        with file.open("rb") as stream:
            while content := stream.read(PIECE):
                digest.update(content)
    return digest.hexdigest()
