"""Parquet (.parquet)."""

from collections.abc import Iterator

from lit_entrodrop.data.file_formats.base import CorpusFile, Record

SUFFIXES = (".parquet",)


def read_records(file: CorpusFile) -> Iterator[Record]:
    """Read one record per row."""
    # Imported here so that other formats do not pay for the import.
    import pyarrow  # type: ignore[import-untyped, unused-ignore]
    from pyarrow import parquet

    try:
        with file.open() as stream:
            rows = parquet.read_table(stream).to_pylist()
    except pyarrow.ArrowInvalid as error:
        raise ValueError(
            f"{file.path}: expected a Parquet file, got {error}. Write it again."
        ) from error
    for number, row in enumerate(rows, start=1):
        yield Record(f"{file.path} row {number}", row)
