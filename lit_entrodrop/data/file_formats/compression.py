"""Compressed files: each is read as a stream, as long as it may be."""

import lzma
from collections.abc import Iterator
from contextlib import contextmanager
from io import BufferedReader
from pathlib import Path

BUFFER = 2**16  # bytes
# By suffix, the name of the compression, as PyArrow has it; it lacks xz.
COMPRESSIONS = {".bz2": "bz2", ".gz": "gzip", ".xz": "xz", ".zst": "zstd"}


def split_suffix(path: Path) -> tuple[str, str]:
    """Return the suffix of the format and that of the compression, or "", in lower case.

    >>> split_suffix(Path("notes.JSONL.gz")), split_suffix(Path("notes.txt"))
    (('.jsonl', '.gz'), ('.txt', ''))
    """
    suffix = path.suffix.lower()
    if suffix in COMPRESSIONS:
        return Path(path.stem).suffix.lower(), suffix
    return suffix, ""


@contextmanager
def open_decompressed(path: Path) -> Iterator[BufferedReader]:
    """Open the content of a file, decompressed as its suffix says, as a stream of bytes.

    Raises:
        ValueError: If the compressed content is cut off or damaged.
    """
    compression = COMPRESSIONS.get(path.suffix.lower())
    if compression is None:
        with path.open("rb") as file:
            yield file
        return
    try:
        with _open(path, compression) as stream:
            yield stream
    except (OSError, EOFError, lzma.LZMAError) as error:
        raise ValueError(
            f"{path}: expected a complete {compression} file, got: {error}. Download or compress "
            "it again."
        ) from error


def _open(path: Path, compression: str) -> BufferedReader:
    if compression == "xz":
        return BufferedReader(lzma.open(path), BUFFER)
    # Imported here so that other files do not pay for the import.
    import pyarrow  # type: ignore[import-untyped, unused-ignore]

    return BufferedReader(pyarrow.input_stream(path, compression, BUFFER), BUFFER)
