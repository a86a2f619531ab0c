"""CSV (.csv) with a header row."""

import csv
import io
import sys
from collections.abc import Iterator

from lit_entrodrop.data.file_formats.base import CorpusFile, Record

SUFFIXES = (".csv",)


def read_records(file: CorpusFile) -> Iterator[Record]:
    """Read one record per row; every row must have as many fields as the header."""
    csv.field_size_limit(sys.maxsize)
    # Rows may also end with a lone carriage return.
    lines = (part for line in file.read_lines() for part in io.StringIO(line, newline=""))
    reader = csv.DictReader(lines, strict=True)
    try:
        columns = list(reader.fieldnames or ())
        if repeated := {name for name in columns if columns.count(name) > 1}:
            raise csv.Error(f"several columns of the name {min(repeated)!r}")
        for number, row in enumerate(reader, start=1):
            if None in row or None in row.values():
                raise csv.Error(f"a row without exactly {len(columns)} columns")
            yield Record(f"{file.path} row {number}", row)
    except csv.Error as error:
        raise ValueError(
            f"{file.path} line {reader.line_num}: expected CSV with a header, got {error}. "
            "Quote fields that contain commas or line ends."
        ) from error
