"""Resolve what a user may name as a corpus: a file, a folder, `hub:…` or `registry:…`."""

import hashlib
from collections.abc import Sequence
from functools import cache
from pathlib import Path

from lit_entrodrop.data.documents import Document, digest_documents, document_from_row
from lit_entrodrop.data.file_formats import SUFFIXES, read_file

HUB, REGISTRY = "hub:", "registry:"


def read_corpus(sources: Sequence[str], text_column: str) -> list[Document]:
    """Read the documents of all sources, one source after another.

    Args:
        sources: Files, folders, `hub:org/name[:config]` or `registry:NAME`.
        text_column: Name of the column that holds plain text.

    Returns:
        All documents, in order.

    Raises:
        FileNotFoundError: If a path does not exist.
        ValueError: If a source cannot be read; the message says where and what to do.
    """
    return [document for source in sources for document in _read_source(source, text_column)]


def digest_corpus(sources: Sequence[str], text_column: str) -> str:
    """Hash the content of all sources, without parsing local files.

    Args:
        sources: As for `read_corpus`.
        text_column: As for `read_corpus`.

    Returns:
        32 hexadecimal digits; the names of files do not matter, their order and bytes do.
    """
    digest = hashlib.blake2b(digest_size=16)
    for source in sources:
        digest.update(_digest_source(source, text_column).encode())
    return digest.hexdigest()


def list_files(path: Path) -> list[Path]:
    """List the files that a path stands for.

    Args:
        path: A file, or a folder that is searched recursively; hidden entries are left out.

    Returns:
        Files with a known extension, sorted by path.

    Raises:
        FileNotFoundError: If the path does not exist.
        ValueError: If the extension is unknown, or the folder holds no supported file.
    """
    known = ", ".join(SUFFIXES)
    if path.is_file():
        if path.suffix in SUFFIXES:
            return [path]
        raise ValueError(
            f"{path}: expected one of the extensions {known}, got {path.suffix!r}. "
            "Rename or convert the file."
        )
    if not path.is_dir():
        raise FileNotFoundError(
            f"{path} does not exist: expected a file, a folder, 'hub:org/name' or 'registry:NAME'. "
            "Check the path, which is relative to the working directory."
        )
    files = [file for file in sorted(path.rglob("*")) if _is_supported(file.relative_to(path))]
    if not files:
        raise ValueError(f"{path} holds no supported file: expected some of {known}. Add one.")
    return files


def _is_supported(relative: Path) -> bool:
    return relative.suffix in SUFFIXES and not any(part.startswith(".") for part in relative.parts)


def _read_source(source: str, text_column: str) -> list[Document]:
    if source.startswith(REGISTRY):
        return _read_registry(source.removeprefix(REGISTRY))
    if source.startswith(HUB):
        return _read_hub(source.removeprefix(HUB), text_column)
    files = list_files(Path(source).expanduser())
    alone = len(files) == 1
    return [document for file in files for document in read_file(file, text_column, alone)]


# Cached, as hashing reads all of it and packing then reads it again.
@cache
def _read_registry(name: str) -> list[Document]:
    from lit_entrodrop.data.corpora.registry import load_corpus

    return [Document("text", text) for text in load_corpus(name)]


@cache
def _read_hub(name: str, text_column: str) -> list[Document]:
    from datasets import load_dataset

    path, _, config = name.partition(":")
    rows = load_dataset(path, config or None, split="train")
    return [
        document_from_row(row, text_column, f"{HUB}{name} row {number}")
        for number, row in enumerate(rows, start=1)
    ]


def _digest_source(source: str, text_column: str) -> str:
    if source.startswith((REGISTRY, HUB)):
        return digest_documents(_read_source(source, text_column))
    digest = hashlib.blake2b(digest_size=16)
    for file in list_files(Path(source).expanduser()):
        content = file.read_bytes()
        digest.update(f"{file.suffix} {len(content)}\n".encode())
        digest.update(content)
    return digest.hexdigest()
