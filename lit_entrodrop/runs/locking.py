"""File locks that reveal whether another process trains in a folder.

The operating system releases a lock when its process ends, even if it is killed. The file also
names host and process, for messages and for file systems without locks.
"""

import errno
import fcntl
import os
from pathlib import Path
from platform import node
from typing import IO, NamedTuple

from lit_entrodrop.runs.writing import naming_path

WITHOUT_LOCKS = (errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOLCK)


class Owner(NamedTuple):
    """Process that has locked a file."""

    host: str
    process: int

    def __str__(self) -> str:
        return f"process {self.process} on {self.host}"

    @property
    def is_known_dead(self) -> bool:
        """Whether the process was on this host and has ended."""
        if self.host != node():
            return False
        try:
            os.kill(self.process, 0)
        except ProcessLookupError:
            return True
        except PermissionError:
            pass
        return False


class Lock:
    """Lock of a file; released by :meth:`release`, at the end of a ``with`` block or the process.

    Forked children do not inherit it, so it never outlives the process.
    """

    def __init__(self, file: IO[str], path: Path) -> None:
        self._file, self._path = file, path
        os.register_at_fork(after_in_child=file.close)

    def __enter__(self) -> "Lock":
        return self

    def __exit__(self, *_: object) -> None:
        self.release()

    def release(self) -> None:
        """Remove the file and release its lock."""
        if not self._file.closed:
            self._path.unlink(missing_ok=True)
            self._file.close()


def lock(path: Path) -> Lock | None:
    """Create a file and lock it; None if another process has locked it.

    >>> from tempfile import TemporaryDirectory
    >>> with TemporaryDirectory() as folder, lock(Path(folder) / "lock"):
    ...     lock(Path(folder) / "lock") is None, owner_of(Path(folder) / "lock").host == node()
    (True, True)

    Raises:
        WriteError: If the disk is full or read-only.
    """
    with naming_path(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        while True:
            file = path.open("a+")
            if not _is_free(file, path):
                file.close()
                return None
            # Its last owner may have removed it before it was locked.
            if _is_same(file, path):
                break
            file.close()
        file.truncate(0)
        file.write(f"{node()} {os.getpid()}\n")
        file.flush()
        return Lock(file, path)


def owner_of(path: Path) -> Owner | None:
    """Return the process that has locked a file; None if the file does not name one."""
    try:
        host, process = path.read_text().split()
        return Owner(host, int(process))
    except (OSError, ValueError):
        return None


def describe_owner(path: Path) -> str:
    """Describe the process that has locked a file and what to do, for an error message."""
    return (
        f"{owner_of(path) or 'another process'} uses it: wait until that ends, or choose another "
        f"folder; if no such process runs, remove {path}"
    )


def _is_free(file: IO[str], path: Path) -> bool:
    owner = owner_of(path)
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno in WITHOUT_LOCKS:
            return owner is None or owner.is_known_dead
        if isinstance(error, BlockingIOError):
            return False
        raise
    if owner is not None and owner.host != node():
        # Takes seconds, and commands import this module to print their help.
        from lightning.pytorch.utilities import rank_zero_warn

        # Some file systems lock files on one machine only.
        rank_zero_warn(
            f"{path.parent}: {owner} ended without removing {path.name}, or still runs: if it "
            "runs, stop one of the two"
        )
    return True


def _is_same(file: IO[str], path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(file.fileno()), path.stat())
    except FileNotFoundError:
        return False
