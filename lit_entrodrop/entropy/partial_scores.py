"""Scores of an unfinished pass, stored on disk so that a killed pass resumes.

Each process writes and locks its own file next to the final one, so that ranks and other runs do
not interfere. The next process reads and removes the files of killed processes.
"""

import contextlib
import fcntl
import os
from pathlib import Path
from typing import BinaryIO
from uuid import uuid4

from lit_entrodrop.entropy.store import EntropyStore
from lit_entrodrop.entropy.store_file import file_size, open_rows
from lit_entrodrop.runs.writing import naming_path

SUFFIX = ".partial"


class PartialScores:
    """The scores of an unfinished pass; `path` is the final file."""

    def __init__(self, path: Path, num_blocks: int, block_size: int, fingerprint: str) -> None:
        self.path = path
        with naming_path(path, file_size(num_blocks, block_size)):
            path.parent.mkdir(parents=True, exist_ok=True)
            # The lock lasts as long as the file is open.
            self._own_path, self._file = _locked_file(path)
            try:
                self.store = EntropyStore(num_blocks, block_size, fingerprint, self._file)
            except OSError:
                # The disk is full: free the space of the unfinished file.
                self._own_path.unlink()
                raise
        self._absorb_others()

    def finish(self, first: bool) -> None:
        """Move the complete scores to the final file on the first rank; remove partial files."""
        if first:
            os.fsync(self._file.fileno())
            self._publish()
            for partial in partial_files(self.path):
                _unlink_if_allowed(partial)
        self._own_path.unlink(missing_ok=True)
        self._file.close()

    def _publish(self) -> None:
        try:
            os.replace(self._own_path, self.path)
        except FileNotFoundError:
            # Another run finished the same pass, and removed this file with its own.
            if not self.path.exists():
                self.store.save(self.path)

    def _absorb_others(self) -> None:
        for partial in partial_files(self.path):
            # Another process may absorb it at the same time, or it may belong to another user.
            with contextlib.suppress(FileNotFoundError, PermissionError, IsADirectoryError):
                self._absorb_partial(partial)
        # A final file that exists has damaged rows, or there would be nothing to score.
        self._absorb(self.path)

    def _absorb_partial(self, partial: Path) -> None:
        if partial == self._own_path:
            return
        with open(partial, "r+b") as file:
            is_abandoned = _lock(file, fcntl.LOCK_NB)
            self._absorb(partial)
            if is_abandoned:
                os.fsync(self._file.fileno())
                _unlink_if_allowed(partial)

    def _absorb(self, path: Path) -> None:
        # A missing, empty or truncated file has no rows to absorb.
        with contextlib.suppress(ValueError):
            rows, _ = open_rows(path)
            if rows.fingerprint == self.store.fingerprint and self.store.fits(rows):
                self.store.absorb(rows)


def partial_files(path: Path) -> list[Path]:
    """Return the files of all unfinished passes, running or killed, for one final file."""
    return sorted(path.parent.glob(f"{path.name}.*{SUFFIX}"))


def _unlink_if_allowed(path: Path) -> None:
    with contextlib.suppress(FileNotFoundError, PermissionError, IsADirectoryError):
        path.unlink()


def _locked_file(path: Path) -> tuple[Path, BinaryIO]:
    while True:
        own_path = path.with_name(f"{path.name}.{uuid4().hex}{SUFFIX}")
        file = open(own_path, "x+b")  # noqa: SIM115
        _lock(file)
        # Before the lock, another process may have removed it as the file of a killed process.
        if own_path.exists():
            return own_path, file
        file.close()


def _lock(file: BinaryIO, flags: int = 0) -> bool:
    """Lock a file and return whether it worked; some file systems have no locks."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | flags)
    except OSError:
        return False
    return True
