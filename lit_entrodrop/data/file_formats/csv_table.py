"""CSV (.csv) and TSV (.tsv) with a header row."""

import csv
import io
import sys
from collections.abc import Iterator

from lit_entrodrop.data.file_formats.base import CorpusFile, Record

DELIMITERS = {".csv": ",", ".tsv": "\t"}
SUFFIXES = tuple(DELIMITERS)
# A header of one column with one of these probably has another delimiter.
USUAL = ",;\t|"


def read_records(file: CorpusFile) -> Iterator[Record]:
    """Read one record per row; every row must have as many fields as the header."""
    csv.field_size_limit(sys.maxsize)
    # Rows may also end with a lone carriage return.
    lines = (part for line in file.read_lines() for part in io.StringIO(line, newline=""))
    delimiter = file.options.delimiter or DELIMITERS[file.suffix]
    reader = csv.DictReader(lines, strict=True, delimiter=delimiter)
    try:
        columns = list(reader.fieldnames or ())
        if file.options.delimiter is None and len(columns) == 1:
            _check_single_column(columns[0], delimiter, file)
        if repeated := {name for name in columns if columns.count(name) > 1}:
            raise csv.Error(f"several columns of the name {min(repeated)!r}")
        for number, row in enumerate(reader, start=1):
            if None in row or None in row.values():
                raise csv.Error(f"a row without exactly {len(columns)} columns")
            yield Record(f"{file.path} row {number}", row)
    except csv.Error as error:
        raise ValueError(
            f"{file.path} line {reader.line_num}: expected columns separated by {delimiter!r} with "
            f"a header, got {error}. Quote fields that contain it or line ends, or set "
            "data.delimiter."
        ) from error


def _check_single_column(column: str, delimiter: str, file: CorpusFile) -> None:
    if found := next((character for character in USUAL if character in column), None):
        raise ValueError(
            f"{file.path} line 1: expected columns separated by {delimiter!r}, got the single "
            f"column {column!r}. Set data.delimiter to {found!r}."
        )
