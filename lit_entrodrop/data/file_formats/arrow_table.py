"""Arrow (.arrow), as a stream, which `datasets` writes, or as a file."""

from collections.abc import Iterator

from lit_entrodrop.data.file_formats.arrow_rows import read_rows
from lit_entrodrop.data.file_formats.base import CorpusFile, Record

SUFFIXES = (".arrow",)
# It precedes the stream of an Arrow file.
MAGIC = b"ARROW1\0\0"


def read_records(file: CorpusFile) -> Iterator[Record]:
    """Read one record per row, one batch of the file at a time."""
    # Imported here so that other formats do not pay for the import.
    import pyarrow  # type: ignore[import-untyped, unused-ignore]

    try:
        with file.open() as stream:
            is_file = stream.peek(len(MAGIC)).startswith(MAGIC)
            if is_file:
                stream.read(len(MAGIC))
            batches = pyarrow.ipc.open_stream(stream)
            for number, row in enumerate(read_rows(batches.schema, batches), start=1):
                yield Record(f"{file.path} row {number}", row)
            if is_file and not stream.read().endswith(MAGIC.rstrip(b"\0")):
                raise OSError("no end, as if it was cut off")
    except (pyarrow.ArrowInvalid, OSError) as error:
        raise ValueError(
            f"{file.path}: expected an Arrow file, got {error}. Write it again."
        ) from error
