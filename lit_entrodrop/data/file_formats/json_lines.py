"""JSON Lines (.jsonl): one JSON object per line."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from lit_entrodrop.data.file_formats.base import CorpusFile, Record

SUFFIXES = (".jsonl",)


def read_records(file: CorpusFile) -> Iterator[Record]:
    """Read one record per line; blank lines are skipped."""
    for number, line in enumerate(file.read_lines(), start=1):
        if line.strip():
            value = parse_json(line.removesuffix("\n"), file.path, number)
            yield object_record(value, f"{file.path} line {number}")


def _with_unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) < len(pairs):
        keys = [key for key, _ in pairs]
        raise ValueError(f"the key {max(keys, key=keys.count)!r} twice in one object")
    return value


DECODER = json.JSONDecoder(object_pairs_hook=_with_unique_keys)


def parse_json(text: str, path: Path, line: int) -> Any:
    """Parse a line of a file; an error names the file and the line."""
    try:
        return DECODER.decode(text)
    except json.JSONDecodeError as error:
        raise json_error(error.msg, path, line, error.colno) from error
    except (ValueError, RecursionError) as error:  # a huge number, or thousands of brackets
        raise json_error(str(error), path, line, 1) from error


def json_error(reason: str, path: Path, line: int, column: int) -> ValueError:
    """Return the error of a file that is no JSON."""
    return ValueError(
        f"{path} line {line}: expected JSON, got {reason!r} at column {column}. "
        "Repair it: write one record per line, or one array of records."
    )


def object_record(value: object, where: str) -> Record:
    """Return a parsed JSON object as a record; anything else is a ValueError."""
    if isinstance(value, dict):
        return Record(where, value)
    raise ValueError(
        f'{where}: expected a JSON object such as {{"text": "..."}}, got {type(value).__name__}. '
        "Write one object per record."
    )
