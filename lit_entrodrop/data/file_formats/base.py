"""The contract of a file format, and access to the content of a file."""

from codecs import IncrementalDecoder, getincrementaldecoder
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from functools import partial
from io import BufferedReader, StringIO
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from lit_entrodrop.data.file_formats.compression import open_decompressed, split_suffix
from lit_entrodrop.data.reading_options import ReadingOptions

PIECE = 2**16  # bytes


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
        path: Path to the file, which may be compressed.
        options: Options of reading.
        alone: Whether it is the only file of its source; only then is a plain text without
            separators cut into groups of paragraphs.
    """

    path: Path
    options: ReadingOptions = field(default_factory=ReadingOptions)
    alone: bool = True

    @property
    def suffix(self) -> str:
        """Suffix of the format, in lower case, without that of a compression."""
        return split_suffix(self.path)[0]

    @property
    def compressed(self) -> bool:
        """Whether the file is compressed as a whole."""
        return bool(split_suffix(self.path)[1])

    def open(self) -> AbstractContextManager[BufferedReader]:
        """Open the content, decompressed; every format reads through this method."""
        return open_decompressed(self.path)

    def read_pieces(self, size: int = PIECE) -> Iterator[str]:
        """Read the content as text without a byte order mark, some bytes at a time.

        Raises:
            ValueError: If the file is empty, binary or in another encoding.
        """
        decoder, offset, blank = getincrementaldecoder(self.options.encoding)(), 0, True
        with self.open() as stream:
            for content in chain(iter(partial(stream.read, size), b""), [b""]):
                piece = self._decode(decoder, content, offset)
                if blank:
                    piece = piece.removeprefix("\ufeff")
                    blank = not piece.strip()
                yield piece
                offset += len(content)
        if blank:
            raise ValueError(f"{self.path} is empty: expected text. Remove the file or fill it.")

    def read_lines(self) -> Iterator[str]:
        """Read the content line by line, as `read_pieces` does.

        Lines keep their end, a line feed. Memory grows with the longest line, not with the file.
        """
        parts: list[str] = []
        for piece in self.read_pieces():
            for part in StringIO(piece):
                parts.append(part)
                if part.endswith("\n"):
                    yield "".join(parts)
                    parts.clear()
        if parts:
            yield "".join(parts)

    def read_text(self) -> str:
        """Read the whole content as `read_pieces` does."""
        return "".join(self.read_pieces())

    def _decode(self, decoder: IncrementalDecoder, content: bytes, offset: int) -> str:
        try:
            text = decoder.decode(content, final=not content)
            if "\0" not in text:
                return text
            problem = f"byte 0x00 at offset {offset + content.find(0)}"
        except UnicodeDecodeError as error:
            # The decoder may keep the start of a character from earlier content.
            offset += len(content) - len(error.object) + error.start
            problem = f"byte 0x{error.object[error.start]:02x} at offset {offset}"
        except UnicodeError as error:
            problem = str(error)
        raise ValueError(
            f"{self.path}: expected {self.options.encoding.upper()} text, got {problem}. Set "
            "data.encoding (for example to utf-16 or cp1252), convert the file (for example with "
            "iconv -t utf-8) or remove it."
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
