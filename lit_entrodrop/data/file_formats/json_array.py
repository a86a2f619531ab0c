"""JSON (.json): an array of objects, or one object per line."""

import json
import re
from collections.abc import Iterator
from typing import Any

from lit_entrodrop.data.file_formats import json_lines
from lit_entrodrop.data.file_formats.base import CorpusFile, Record

SUFFIXES = (".json",)
PIECE = 2**16  # bytes

_SPACE = re.compile(r"[ \t\n\r]*")


def read_records(file: CorpusFile) -> Iterator[Record]:
    """Read one record per object of the array."""
    first = next((piece for piece in file.read_pieces(PIECE) if piece.strip()), "")
    if not first.lstrip().startswith("["):
        yield from json_lines.read_records(file)
        return
    for number, row in enumerate(_ArrayParser(file).parse(), start=1):
        yield json_lines.object_record(row, f"{file.path} row {number}")


class _ArrayParser:
    """Parser of an array that keeps one piece of the file in memory."""

    def __init__(self, file: CorpusFile) -> None:
        self._path = file.path
        self._pieces = file.read_pieces(PIECE)
        self._text, self._position = "", 0
        # Where the text starts in the file, from 0.
        self._line = self._column = 0

    def parse(self) -> Iterator[Any]:
        """Yield the elements of the array.

        Raises:
            ValueError: If the file is no array; the message names the line and the column.
        """
        self._skip("[", "Expecting value")
        if self._next_character() != "]":
            yield self._value()
            while self._next_character() == ",":
                self._skip(",", "")
                yield self._value()
        self._skip("]", "Expecting ',' delimiter")
        if self._next_character():
            raise self._error("Extra data")

    def _value(self) -> Any:
        self._next_character()
        while True:
            try:
                value, end = json_lines.DECODER.raw_decode(self._text, self._position)
            except json.JSONDecodeError as error:
                if not self._read():
                    self._position = error.pos
                    raise self._error(error.msg) from error
                continue
            except (ValueError, RecursionError) as error:  # as in a line
                raise self._error(str(error)) from error
            # What looks like a whole number may be the start of a longer one.
            if end < len(self._text) or not self._read():
                self._position = end
                return value

    def _skip(self, character: str, problem: str) -> None:
        if self._next_character() != character:
            raise self._error(problem)
        self._position += 1

    def _next_character(self) -> str:
        while True:
            match = _SPACE.match(self._text, self._position)
            assert match is not None, "the pattern matches the empty string too"
            self._position = match.end()
            if self._position < len(self._text) or not self._read():
                return self._text[self._position : self._position + 1]

    def _read(self) -> bool:
        """Replace what was parsed by new text: a piece, or as much as is left to parse."""
        wanted, pieces = len(self._text) - self._position, []
        for piece in self._pieces:
            pieces.append(piece)
            wanted -= len(piece)
            if wanted <= 0:
                break
        if pieces:
            self._line, self._column = self._place()
            self._text = "".join([self._text[self._position :], *pieces])
            self._position = 0
        return bool(pieces)

    def _place(self) -> tuple[int, int]:
        lines = self._text.count("\n", 0, self._position)
        if not lines:
            return self._line, self._column + self._position
        start = self._text.rindex("\n", 0, self._position) + 1
        return self._line + lines, self._position - start

    def _error(self, reason: str) -> ValueError:
        line, column = self._place()
        return json_lines.json_error(reason, self._path, line + 1, column + 1)
