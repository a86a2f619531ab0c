"""The contract of a file format, and access to the content of a file."""

from codecs import IncrementalDecoder, getincrementaldecoder
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple, Protocol

from lit_entrodrop.data.reading import Reading


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
        reading: Options of reading.
        alone: Whether it is the only file of its source; only then is a plain text without
            separators cut into groups of paragraphs.
    """

    path: Path
    reading: Reading = field(default_factory=Reading)
    alone: bool = True

    def open(self) -> BinaryIO:
        """Open the content as a stream of bytes; every format reads through this method."""
        return self.path.open("rb")

    def read_lines(self, most_bytes: int = -1) -> Iterator[str]:
        """Read the content as UTF-8 without a byte order mark, line by line.

        Lines keep their end, a line feed. Memory grows with the longest line, not with the file.

        Args:
            most_bytes: Number of bytes after which a longer line is cut; -1 for no limit.

        Raises:
            ValueError: If the file is empty, binary or in another encoding.
        """
        decoder, offset, blank = getincrementaldecoder("utf-8-sig")(), 0, True
        with self.open() as stream:
            while content := stream.readline(most_bytes):
                if line := self._decode(decoder, content, offset):
                    yield line
                offset, blank = offset + len(content), blank and content.isspace()
        if blank:
            raise ValueError(f"{self.path} is empty: expected text. Remove the file or fill it.")
        self._decode(decoder, b"", offset)

    def read_text(self) -> str:
        """Read the whole content as `read_lines` does."""
        return "".join(self.read_lines())

    def _decode(self, decoder: IncrementalDecoder, content: bytes, offset: int) -> str:
        try:
            text = decoder.decode(content, final=not content)
            invalid, place = content, content.find(b"\0")
        except UnicodeDecodeError as error:
            invalid, place = error.object, error.start
        if place < 0:
            return text
        offset += len(content) - len(invalid) + place
        raise ValueError(
            f"{self.path}: expected UTF-8 text, got byte 0x{invalid[place]:02x} at offset "
            f"{offset}. Convert the file (for example with iconv -t utf-8) or remove it."
        )


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
