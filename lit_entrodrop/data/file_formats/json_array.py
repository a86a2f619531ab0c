"""JSON (.json): an array of objects, or one object per line."""

from collections.abc import Iterator

from lit_entrodrop.data.file_formats import json_lines
from lit_entrodrop.data.file_formats.base import CorpusFile, Record

SUFFIXES = (".json",)


def read_records(file: CorpusFile) -> Iterator[Record]:
    """Read one record per object of the array."""
    text = file.read_text()
    if not text.lstrip().startswith("["):
        yield from json_lines.read_records(file)
        return
    for number, row in enumerate(json_lines.parse_json(text, file.path), start=1):
        yield json_lines.object_record(row, f"{file.path} row {number}")
