"""The contract of a file format, and access to the content of a file."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple, Protocol


class Record(NamedTuple):
    """One record of a file.

    Attributes:
        where: File and line or row, for error messages.
        content: Plain text, or a row as a mapping from column to value.
    """

    where: str
    content: str | Mapping[str, Any]


@dataclass(frozen=True)
class CorpusFile:
    """A file of a corpus.

    Args:
        path: Path to the file.
        alone: Whether it is the only file of its source; only then is a plain text without
            separators cut into groups of paragraphs.
    """

    path: Path
    alone: bool = True

    def open(self) -> BinaryIO:
        """Open the content as a stream of bytes; every format reads through this method."""
        return self.path.open("rb")

    def read_text(self) -> str:
        """Read the content as UTF-8, without a byte order mark.

        Raises:
            ValueError: If the file is empty, binary or in another encoding.
        """
        with self.open() as stream:
            content = stream.read()
        if not content.strip():
            raise ValueError(f"{self.path} is empty: expected text. Remove the file or fill it.")
        try:
            text = content.decode("utf-8")
            offset = content.find(b"\0")
        except UnicodeDecodeError as error:
            offset = error.start
        if offset >= 0:
            raise ValueError(
                f"{self.path}: expected UTF-8 text, got byte 0x{content[offset]:02x} at offset "
                f"{offset}. Convert the file (for example with iconv -t utf-8) or remove it."
            )
        return text.removeprefix("\ufeff")


class FileFormat(Protocol):
    """A module that reads one file format.

    Attributes:
        SUFFIXES: Suffixes of the format, each with its dot, in lower case.
    """

    SUFFIXES: tuple[str, ...]

    @staticmethod
    def read_records(file: CorpusFile) -> Iterator[Record]:
        """Read the records of a file in order.

        Raises:
            ValueError: If the file is malformed; the message names the file and the line or row.
        """
        ...
