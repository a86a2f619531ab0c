"""Parquet (.parquet)."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from tempfile import TemporaryFile
from typing import IO

from lit_entrodrop.data.file_formats.arrow_rows import ROWS_AT_A_TIME, read_rows
from lit_entrodrop.data.file_formats.base import CorpusFile, Record

SUFFIXES = (".parquet",)


def read_records(file: CorpusFile) -> Iterator[Record]:
    """Read one record per row, a few at a time."""
    # Imported here so that other formats do not pay for the import.
    import pyarrow  # type: ignore[import-untyped, unused-ignore]
    from pyarrow import parquet

    try:
        with _open_seekable(file) as stream:
            table = parquet.ParquetFile(stream)
            rows = read_rows(table.schema_arrow, table.iter_batches(ROWS_AT_A_TIME))
            for number, row in enumerate(rows, start=1):
                yield Record(f"{file.path} row {number}", row)
    except pyarrow.ArrowInvalid as error:
        raise ValueError(
            f"{file.path}: expected a Parquet file, got {error}. Write it again."
        ) from error


@contextmanager
def _open_seekable(file: CorpusFile) -> Iterator[IO[bytes]]:
    """Open the content, decompressed into a temporary file if need be: its index is at its end."""
    with file.open() as stream:
        if not file.compressed:
            yield stream
            return
        with TemporaryFile() as whole:
            shutil.copyfileobj(stream, whole)
            yield whole
