"""Arrow (.arrow), as a stream, which `datasets` writes, or as a file."""

from collections.abc import Iterator
from io import BufferedReader, RawIOBase

from lit_entrodrop.data.file_formats.arrow_rows import read_rows
from lit_entrodrop.data.file_formats.base import CorpusFile, Record

SUFFIXES = (".arrow",)
# It precedes the stream of an Arrow file.
MAGIC = b"ARROW1\0\0"
# It ends a stream; PyArrow takes the end of the file for it.
END = b"\xff\xff\xff\xff\0\0\0\0"


class _FollowedStream(RawIOBase):
    """A stream that remembers the last bytes that were read."""

    def __init__(self, stream: BufferedReader) -> None:
        self._stream = stream
        self.last = b""

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1) -> bytes:
        content = self._stream.read(size)
        self.last = (self.last + content[-len(END) :])[-len(END) :]
        return content


def read_records(file: CorpusFile) -> Iterator[Record]:
    """Read one record per row, one batch of the file at a time."""
    # Imported here so that other formats do not pay for the import.
    import pyarrow  # type: ignore[import-untyped, unused-ignore]

    try:
        with file.open() as stream:
            is_file = stream.peek(len(MAGIC)).startswith(MAGIC)
            if is_file:
                stream.read(len(MAGIC))
            followed = _FollowedStream(stream)
            batches = pyarrow.ipc.open_stream(followed)
            for number, row in enumerate(read_rows(batches.schema, batches), start=1):
                yield Record(f"{file.path} row {number}", row)
            has_end = stream.read().endswith(MAGIC.rstrip(b"\0")) if is_file else True
            if followed.last != END or not has_end:
                raise pyarrow.ArrowInvalid("no end, as if it was cut off")
    except (pyarrow.ArrowInvalid, OSError) as error:
        raise ValueError(
            f"{file.path}: expected an Arrow file, got {error}. Write it again."
        ) from error
