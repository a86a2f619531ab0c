"""Detection of bit rot in checkpoints, by the checksums that PyTorch writes but does not verify.

Each file is a ZIP archive, or, in a folder of shards, a sequence of them, with a CRC-32 of every
record. `read_checkpoint` checks the table of contents of shards, which is no archive.
"""

import io
import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import BinaryIO, NamedTuple, cast
from zipfile import ZipFile, ZipInfo

from lit_entrodrop.runs.checkpoints.reading import METADATA, SafeReader
from lit_entrodrop.runs.checkpoints.zero import TAG, is_zero_folder
from lit_entrodrop.runtime.progress import track

CHUNK = 2**18


class Archive(NamedTuple):
    """ZIP archive within a file; ``content`` describes it, empty for the whole file."""

    file: Path
    start: int
    length: int
    content: str = ""


class Record(NamedTuple):
    """Record of an archive; None stands for its directory."""

    archive: Archive
    info: ZipInfo | None
    opened: ZipFile | None


def verify_checkpoint(path: Path) -> None:
    """Read a checkpoint completely, and compare it with its checksums.

    Args:
        path: Path as for :func:`~lit_entrodrop.runs.checkpoints.reading.read_checkpoint`.

    Raises:
        ValueError: If a bit has changed; names the file and the record.
    """
    archives = list(_archives(path))
    with ExitStack() as stack, ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
        files = {each.file: stack.enter_context(each.file.open("rb")) for each in archives}
        records = [record for each in archives for record in _records(each, files[each.file])]
        verified = zip(records, pool.map(_is_intact, records), strict=True)
        for record, is_intact in track(verified, "Verifying", len(records), unit="records"):
            if not is_intact:
                pool.shutdown(wait=False, cancel_futures=True)
                archive, info, _ = record
                within = "" if info is None else f" {info.filename}"
                raise _damaged(archive.file, f"{archive.content}{within}".strip())


def _damaged(file: Path, record: str) -> ValueError:
    which = f"record {record}" if record else "content"
    return ValueError(
        f"ckpt_path: {file} is damaged: its {which} differs from what was written: use another "
        "checkpoint, or copy it again"
    )


def _archives(path: Path) -> Iterator[Archive]:
    if path.is_file():
        files = [path]
    elif is_zero_folder(path):
        files = sorted((path / TAG).rglob("*.pt"))
    else:
        files = [path / METADATA]
        for index, place in (SafeReader(path).read_metadata().storage_data or {}).items():
            yield Archive(path / place.relative_path, place.offset, place.length, index.fqn)
    for file in files:
        yield Archive(file, 0, file.stat().st_size)


def _records(archive: Archive, file: BinaryIO) -> Iterator[Record]:
    try:
        content = ZipFile(cast(BinaryIO, _Window(file, archive)))
    except Exception:  # a damaged directory raises nearly anything
        yield Record(archive, None, None)
        return
    for info in content.infolist():
        yield Record(archive, info, content)


def _is_intact(record: Record) -> bool:
    if record.info is None or record.opened is None:
        return False
    try:
        with record.opened.open(record.info) as file:
            while file.read(CHUNK):
                pass
    except Exception:  # as above
        return False
    return True


class _Window(io.RawIOBase):
    """Part of an open file as a file of its own; several threads may read different parts."""

    def __init__(self, file: BinaryIO, archive: Archive) -> None:
        self._descriptor = file.fileno()
        self._start, self._length = archive.start, archive.length
        self._position = 0

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        base = {os.SEEK_SET: 0, os.SEEK_CUR: self._position, os.SEEK_END: self._length}[whence]
        self._position = base + offset
        return self._position

    def read(self, size: int = -1) -> bytes:
        left = self._length - self._position
        size = left if size < 0 else min(size, left)
        content = os.pread(self._descriptor, max(size, 0), self._start + self._position)
        self._position += len(content)
        return content
