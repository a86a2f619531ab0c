"""JSON Lines (.jsonl): one JSON object per line."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from lit_entrodrop.data.file_formats.base import CorpusFile, Record

SUFFIXES = (".jsonl",)


def read_records(file: CorpusFile) -> Iterator[Record]:
    """Read one record per line; blank lines are skipped."""
    for number, line in enumerate(file.read_text().split("\n"), start=1):
        if line.strip():
            yield object_record(parse_json(line, file.path, number), f"{file.path} line {number}")


def parse_json(text: str, path: Path, first_line: int = 1) -> Any:
    """Parse the JSON that starts at a line of a file; an error names the file and the line."""
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        raise ValueError(
            f"{path} line {first_line + error.lineno - 1}: expected JSON, got {error.msg!r} at "
            f"column {error.colno}. Repair it: write one record per line, or one array of records."
        ) from error


def object_record(value: object, where: str) -> Record:
    """Return a parsed JSON object as a record; anything else is a ValueError."""
    if isinstance(value, dict):
        return Record(where, value)
    raise ValueError(
        f'{where}: expected a JSON object such as {{"text": "..."}}, got {type(value).__name__}. '
        "Write one object per record."
    )
