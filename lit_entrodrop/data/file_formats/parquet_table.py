"""Parquet (.parquet)."""

from collections.abc import Iterator
from itertools import chain

from lit_entrodrop.data.arrow_rows import without_added_nulls
from lit_entrodrop.data.file_formats.base import CorpusFile, Record

SUFFIXES = (".parquet",)
ROWS_AT_A_TIME = 100


def read_records(file: CorpusFile) -> Iterator[Record]:
    """Read one record per row, a few at a time."""
    # Imported here so that other formats do not pay for the import.
    import pyarrow  # type: ignore[import-untyped, unused-ignore]
    from pyarrow import parquet

    try:
        with file.open() as stream:
            batches = parquet.ParquetFile(stream).iter_batches(ROWS_AT_A_TIME)
            rows = chain.from_iterable(batch.to_pylist() for batch in batches)
            for number, row in enumerate(rows, start=1):
                yield Record(f"{file.path} row {number}", without_added_nulls(row))
    except pyarrow.ArrowInvalid as error:
        raise ValueError(
            f"{file.path}: expected a Parquet file, got {error}. Write it again."
        ) from error
