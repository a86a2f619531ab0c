"""Read documents from text, JSON, CSV and Parquet files, refusing whatever is not well-formed."""

import csv
import io
import json
import re
import sys
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

from lit_entrodrop.data.documents import Document, document_from_row

SEPARATOR = "<|endoftext|>"
GROUP_CHARACTERS = 4_000

_SEPARATOR_LINE = re.compile(rf"^[ \t]*{re.escape(SEPARATOR)}[ \t]*\r?$\n?", re.MULTILINE)
_LINE_ENDS = re.compile(r"\n(?:[ \t\r]*\n)*")


def read_text_file(path: Path) -> str:
    """Read a UTF-8 text file.

    Args:
        path: The file.

    Returns:
        Its text, without a byte order mark.

    Raises:
        ValueError: If it is empty, binary or in another encoding.
    """
    content = path.read_bytes()
    if not content.strip():
        raise ValueError(f"{path} is empty: expected text. Remove the file or fill it.")
    try:
        text = content.decode("utf-8")
        offset = content.find(b"\0")
    except UnicodeDecodeError as error:
        offset = error.start
    if offset >= 0:
        raise ValueError(
            f"{path}: expected UTF-8 text, got byte 0x{content[offset]:02x} at offset {offset}. "
            "Convert the file (for example with iconv -t utf-8) or remove it."
        )
    return text.removeprefix("\ufeff")


def split_at_separators(text: str) -> list[str]:
    r"""Cut a text at the lines that hold only `<|endoftext|>`.

    Args:
        text: Any text.

    Returns:
        The non-blank parts, or the whole text alone if it has no such line.

    >>> split_at_separators("a\n<|endoftext|>\nb\n")
    ['a\n', 'b\n']
    """
    return [part for part in _SEPARATOR_LINE.split(text) if part.strip()]


def split_into_groups(text: str, characters: int = GROUP_CHARACTERS) -> list[str]:
    r"""Cut a long text into groups of paragraphs.

    A group ends at the first blank line after `characters`, or at the first line end after twice
    as many. Text added at the end thus leaves all groups but the last as they were.

    Args:
        text: Any text.
        characters: Least length of a group but the last.

    Returns:
        The groups, in order; joined, they give the text back.

    >>> split_into_groups("one\n\ntwo\n\nthree", characters=6)
    ['one\n\ntwo\n\n', 'three']
    """
    cuts = [0]
    for match in _LINE_ENDS.finditer(text.rstrip()):
        blank_line = match.group().count("\n") > 1
        if match.end() - cuts[-1] >= (characters if blank_line else 2 * characters):
            cuts.append(match.end())
    return [text[start:end] for start, end in pairwise([*cuts, len(text)])]


def read_file(path: Path, text_column: str, alone: bool) -> list[Document]:
    """Read the documents of one file.

    A .txt file with lines that hold only `<|endoftext|>` is cut there. Without them, it is cut
    into groups of paragraphs of about 4,000 characters if it is `alone`, else it is one document.

    Args:
        path: A .txt, .jsonl, .json, .csv or .parquet file.
        text_column: Name of the column that holds plain text.
        alone: Whether it is the only file of its source.

    Returns:
        The documents, in the order of the file.

    Raises:
        ValueError: If the file is empty, broken or lacks the columns; the message names the place.
    """
    if path.suffix == ".txt":
        text = read_text_file(path)
        parts = split_at_separators(text)
        if alone and parts == [text]:
            parts = split_into_groups(text)
        documents = [Document("text", part) for part in parts]
    else:
        rows = _ROW_READERS[path.suffix](path)
        documents = [document_from_row(row, text_column, where) for where, row in rows]
    if not documents:
        raise ValueError(f"{path} is empty: it holds no document. Remove the file or fill it.")
    return documents


Rows = Iterator[tuple[str, dict[str, Any]]]


def _read_json(path: Path) -> Rows:
    text = read_text_file(path)
    if path.suffix == ".json" and text.lstrip().startswith("["):
        for number, row in enumerate(_parse_json(text, path), start=1):
            yield _record(row, f"{path} row {number}")
        return
    for number, line in enumerate(text.split("\n"), start=1):
        if line.strip():
            yield _record(_parse_json(line, path, number), f"{path} line {number}")


def _parse_json(text: str, path: Path, first_line: int = 1) -> Any:
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        raise ValueError(
            f"{path} line {first_line + error.lineno - 1}: expected JSON, got {error.msg!r} at "
            f"column {error.colno}. Repair it; each record takes one line or is in an array."
        ) from error


def _record(row: object, where: str) -> tuple[str, dict[str, Any]]:
    if isinstance(row, dict):
        return where, row
    raise ValueError(
        f'{where}: expected a JSON object such as {{"text": "..."}}, got {type(row).__name__}. '
        "Write one object a record."
    )


def _read_csv(path: Path) -> Rows:
    csv.field_size_limit(sys.maxsize)
    reader = csv.DictReader(io.StringIO(read_text_file(path), newline=""), restkey="", strict=True)
    try:
        for number, row in enumerate(reader, start=1):
            if "" in row or None in row.values():
                columns = len(reader.fieldnames or ())
                raise csv.Error(f"a row without exactly {columns} columns")
            yield f"{path} row {number}", row
    except csv.Error as error:
        raise ValueError(
            f"{path} line {reader.line_num}: expected CSV with a header, got {error}. "
            "Quote fields that hold commas or line ends."
        ) from error


def _read_parquet(path: Path) -> Rows:
    # Here, so that corpora in other formats do not pay for the import.
    import pyarrow  # type: ignore[import-untyped, unused-ignore]
    from pyarrow import parquet

    try:
        rows = parquet.read_table(path).to_pylist()
    except pyarrow.ArrowInvalid as error:
        raise ValueError(
            f"{path}: expected a Parquet file, got {error}. Write it again."
        ) from error
    for number, row in enumerate(rows, start=1):
        yield f"{path} row {number}", row


_ROW_READERS: dict[str, Callable[[Path], Rows]] = {
    ".csv": _read_csv,
    ".json": _read_json,
    ".jsonl": _read_json,
    ".parquet": _read_parquet,
}
SUFFIXES = (".txt", *_ROW_READERS)
