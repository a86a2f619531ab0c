"""Sources of a corpus: a file, a folder, `hub:…` or `registry:…`."""

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cache
from itertools import chain
from pathlib import Path
from typing import Any

from lit_entrodrop.data.arrow_rows import without_added_nulls
from lit_entrodrop.data.documents import Document, digest_documents
from lit_entrodrop.data.file_formats import CorpusFile, read_file, supported_formats
from lit_entrodrop.data.reading import Reading
from lit_entrodrop.data.records import document_from_row
from lit_entrodrop.model.hub import use_cache_if_unreachable

HUB, REGISTRY = "hub:", "registry:"
PIECE = 2**20  # bytes
MOST_SHOWN = 10  # files


def read_corpus(sources: Sequence[str], reading: Reading) -> Iterator[Document]:
    """Yield the documents of files, folders, `hub:org/name[:config]` or `registry:NAME`, in order.

    Raises:
        FileNotFoundError: If a path does not exist.
        ValueError: If a source cannot be read; the message names the place and the remedy.
    """
    for source in sources:
        yield from _read_source(source, reading)


def digest_corpus(sources: Sequence[str], reading: Reading) -> str:
    """Hash the options and the content of all sources, 32 hexadecimal digits.

    Local files are not parsed: the hash depends on their bytes and order, not on their names.
    """
    digest = hashlib.blake2b(repr(reading).encode(), digest_size=16)
    for source in sources:
        digest.update(_digest_source(source, reading).encode())
    return digest.hexdigest()


def count_bytes(sources: Sequence[str]) -> int:
    """Count the bytes of the files of all sources; `hub:` and `registry:` count as 0."""
    paths = [each for each in sources if not each.startswith((REGISTRY, HUB))]
    files = chain.from_iterable(list_files(Path(path).expanduser()) for path in paths)
    return sum(file.stat().st_size for file in files)


def list_files(path: Path) -> list[Path]:
    """List the supported files of a path, sorted; the suffix may be in upper case.

    Hidden files of a folder and files in its hidden folders are left out.

    Raises:
        FileNotFoundError: If the path does not exist.
        ValueError: If the suffix is unknown, or the folder contains no supported file.
    """
    known = ", ".join(supported_formats())
    if path.is_file():
        if _is_supported(path):
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
    files = [file for file in _visible_files(path) if _is_supported(file)]
    if not files:
        raise ValueError(f"{path} contains no supported file: expected one of {known}. Add one.")
    return files


def describe_unread(sources: Sequence[str]) -> str:
    """Describe the files of folders that are not read, one line per folder; empty for none.

    Hidden files are not described.
    """
    lines = []
    for source in sources:
        folder = Path(source).expanduser()
        if source.startswith((HUB, REGISTRY)) or not folder.is_dir():
            continue
        unread = [file for file in _visible_files(folder) if not _is_supported(file)]
        if unread:
            shown = ", ".join(str(file.relative_to(folder)) for file in unread[:MOST_SHOWN])
            shown += ", ..." * (len(unread) > MOST_SHOWN)
            lines.append(
                f"{source}: {len(unread):,} files not read, because their suffix is none of "
                f"{', '.join(supported_formats())}: {shown}"
            )
    return "\n".join(lines)


def _visible_files(folder: Path) -> list[Path]:
    return [
        file
        for file in sorted(folder.rglob("*"))
        if file.is_file()
        and not any(part.startswith(".") for part in file.relative_to(folder).parts)
    ]


def _is_supported(file: Path) -> bool:
    return file.suffix.lower() in supported_formats()


def _read_source(source: str, reading: Reading) -> Iterator[Document]:
    if source.startswith(REGISTRY):
        return _read_registry(source.removeprefix(REGISTRY))
    if source.startswith(HUB):
        return _read_hub(source.removeprefix(HUB), reading)
    files = list_files(Path(source).expanduser())
    alone = len(files) == 1
    return chain.from_iterable(read_file(CorpusFile(file, reading, alone)) for file in files)


def _read_registry(name: str) -> Iterator[Document]:
    return (Document("text", text) for text in _load_corpus(name))


def _read_hub(name: str, reading: Reading) -> Iterator[Document]:
    for number, row in enumerate(_load_dataset(name), start=1):
        yield document_from_row(without_added_nulls(row), reading, f"{HUB}{name} row {number}")


# Cached because the corpus is read twice: to hash it, then to pack it.
@cache
def _load_corpus(name: str) -> list[str]:
    from lit_entrodrop.data.corpora.registry import load_corpus

    return load_corpus(name)


@cache
def _load_dataset(name: str) -> Iterable[Mapping[str, Any]]:
    from datasets import load_dataset

    path, _, config = name.partition(":")
    unreachable = use_cache_if_unreachable()
    try:
        rows: Iterable[Mapping[str, Any]] = load_dataset(path, config or None, split="train")
    except Exception as error:  # the files of a dataset can fail anywhere in its readers
        reason = f": {unreachable}" if unreachable else ""
        raise ValueError(
            f"data.corpus: cannot load {HUB}{name}: {error}{reason}. Correct the name, or download "
            "its files and name their folder."
        ) from error
    return rows


def _digest_source(source: str, reading: Reading) -> str:
    if source.startswith((REGISTRY, HUB)):
        return digest_documents(_read_source(source, reading))
    digest = hashlib.blake2b(digest_size=16)
    for file in list_files(Path(source).expanduser()):
        digest.update(f"{file.suffix.lower()} {file.stat().st_size}\n".encode())
        with file.open("rb") as stream:
            while content := stream.read(PIECE):
                digest.update(content)
    return digest.hexdigest()
