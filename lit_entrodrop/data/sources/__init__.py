"""Sources of a corpus: a file, a folder, `hub:…` or `registry:…`."""

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import cache
from itertools import chain
from pathlib import Path

from lit_entrodrop.data.documents import Document, digest_documents
from lit_entrodrop.data.file_formats import CorpusFile, read_file
from lit_entrodrop.data.file_formats.compression import split_suffix
from lit_entrodrop.data.reading_options import ReadingOptions
from lit_entrodrop.data.records import document_from_row
from lit_entrodrop.data.sources.hub import HUB, read_hub
from lit_entrodrop.data.sources.local_files import describe_unread_files, list_files, text_bytes
from lit_entrodrop.runtime.shown_text import one_line

__all__ = ["count_bytes", "describe_unread", "digest_corpus", "list_files", "read_corpus"]

REGISTRY = "registry:"
PIECE = 2**20  # bytes


def read_corpus(sources: Sequence[str], options: ReadingOptions) -> Iterator[Document]:
    """Yield the documents of sources in order; docs/text.md describes the sources.

    Raises:
        FileNotFoundError: If a path does not exist.
        ValueError: If a source cannot be read; the message names the place and the remedy.
    """
    for number, source in enumerate(sources):
        for document in _read_source(source, options):
            yield replace(document, source=number) if number else document


def digest_corpus(sources: Sequence[str], options: ReadingOptions) -> str:
    """Hash the options and the content of all sources, 32 hexadecimal digits.

    Local files are not parsed: the hash depends on their bytes and order, not on their names.
    """
    digest = hashlib.blake2b(repr(options).encode(), digest_size=16)
    for source in sources:
        digest.update(_digest_source(source, options).encode())
    return digest.hexdigest()


def count_bytes(sources: Sequence[str]) -> int:
    """Estimate the bytes of text in the files of all sources; 0 for `hub:` and `registry:`."""
    files = chain.from_iterable(list_files(_path(each)) for each in filter(_is_local, sources))
    return sum(map(text_bytes, files))


def describe_unread(sources: Sequence[str], name: Callable[[str], str] = str) -> str:
    """Describe what is not read of folders, one line per folder and reason; empty for nothing.

    Args:
        sources: The sources.
        name: Function that returns the shown name of a source.
    """
    return "\n".join(
        one_line(f"{name(source)}: {unread}")
        for source in filter(_is_local, sources)
        for unread in describe_unread_files(_path(source))
    )


def _is_local(source: str) -> bool:
    return not source.startswith((REGISTRY, HUB))


def _path(source: str) -> Path:
    if not source.strip():
        # It would be the working directory.
        raise ValueError(
            "data.corpus, replay or another text: expected the path or name of a source, got "
            f"{source!r}. Write '.' for the working directory, or null for none."
        )
    return Path(source).expanduser()


def _read_source(source: str, options: ReadingOptions) -> Iterator[Document]:
    if source.startswith(REGISTRY):
        return (Document("text", text) for text in _load_corpus(source.removeprefix(REGISTRY)))
    if source.startswith(HUB):
        rows = enumerate(read_hub(source), start=1)
        return (document_from_row(row, options, f"{source} row {number}") for number, row in rows)
    files = list_files(_path(source))
    alone = len(files) == 1
    return chain.from_iterable(read_file(CorpusFile(file, options, alone)) for file in files)


# Cached because the corpus is read twice, to hash it and to pack it, and hashed on each setup.
@cache
def _load_corpus(name: str) -> list[str]:
    from lit_entrodrop.data.corpora.registry import load_corpus

    return load_corpus(name)


@cache
def _digest_registry(name: str) -> str:
    return digest_documents(Document("text", text) for text in _load_corpus(name))


def _digest_source(source: str, options: ReadingOptions) -> str:
    if source.startswith(REGISTRY):
        return _digest_registry(source.removeprefix(REGISTRY))
    if source.startswith(HUB):
        return digest_documents(_read_source(source, options))
    digest = hashlib.blake2b(digest_size=16)
    for file in list_files(_path(source)):
        suffix = "".join(split_suffix(file))
        digest.update(f"{suffix} {file.stat().st_size}\n".encode())
        with file.open("rb") as stream:
            while content := stream.read(PIECE):
                digest.update(content)
    return digest.hexdigest()
