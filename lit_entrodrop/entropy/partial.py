"""A scoring under way, kept on disk so that a killed one goes on where it stood.

Each process writes a file of its own beside the final one, so that neither ranks nor other runs
disturb it, and holds a lock on it. What killed processes left is taken over by whoever comes next.
"""

import contextlib
import fcntl
import os
from pathlib import Path
from typing import BinaryIO
from uuid import uuid4

from lit_entrodrop.entropy.file import open_rows
from lit_entrodrop.entropy.store import EntropyStore

SUFFIX = ".partial"


class PartialScores:
    """The entropies of a scoring under way.

    Args:
        path: the file that they will become.
        num_blocks: number of blocks of the split.
        block_size: tokens per block.
        fingerprint: content hash of the blocks.
    """

    def __init__(self, path: Path, num_blocks: int, block_size: int, fingerprint: str) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self.path = path
        # Kept open: the lock ends with it.
        self._own_path, self._file = _locked_file(path)
        try:
            self.store = EntropyStore(num_blocks, block_size, fingerprint, self._file)
        except OSError:
            # A full disk gets back the room of what was begun.
            self._own_path.unlink()
            raise
        self._take_over_others()

    def finish(self, first: bool) -> None:
        """Put the complete entropies in their final place, and remove all partial files.

        Args:
            first: whether this is the rank that does so; others give up their own file.
        """
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
            # Another run has finished the same scoring, and has removed our file with its own.
            if not self.path.exists():
                self.store.save(self.path)

    def _take_over_others(self) -> None:
        for partial in partial_files(self.path):
            # Another process may take it over at the same time, or it may belong to another user.
            with contextlib.suppress(FileNotFoundError, PermissionError, IsADirectoryError):
                self._take_over(partial)
        # A finished file with torn rows, else there would be nothing to score.
        self._absorb(self.path)

    def _take_over(self, partial: Path) -> None:
        if partial == self._own_path:
            return
        with open(partial, "r+b") as file:
            left_behind = _lock(file, fcntl.LOCK_NB)
            self._absorb(partial)
            if left_behind:
                os.fsync(self._file.fileno())
                _unlink_if_allowed(partial)

    def _absorb(self, path: Path) -> None:
        # What is missing, empty or cut short holds nothing to take over.
        with contextlib.suppress(ValueError):
            rows, _ = open_rows(path)
            if rows.fingerprint == self.store.fingerprint and self.store.fits(rows):
                self.store.absorb(rows)


def partial_files(path: Path) -> list[Path]:
    """Return the files of all scorings under way, or killed, of one final file."""
    return sorted(path.parent.glob(f"{path.name}.*{SUFFIX}"))


def _unlink_if_allowed(path: Path) -> None:
    with contextlib.suppress(FileNotFoundError, PermissionError, IsADirectoryError):
        path.unlink()


def _locked_file(path: Path) -> tuple[Path, BinaryIO]:
    while True:
        own_path = path.with_name(f"{path.name}.{uuid4().hex}{SUFFIX}")
        file = open(own_path, "x+b")  # noqa: SIM115
        _lock(file)
        # Before it was locked, another process may have taken it for left behind.
        if own_path.exists():
            return own_path, file
        file.close()


def _lock(file: BinaryIO, flags: int = 0) -> bool:
    """Lock a file and tell whether that was possible; not every file system can."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | flags)
    except OSError:
        return False
    return True
