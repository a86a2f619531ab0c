"""File locks, by which comparisons and runs find out that another process is at work."""

import fcntl
from pathlib import Path
from typing import IO


def lock(path: Path) -> IO[str] | None:
    """Create and lock a file until this process and all that inherit it have closed it.

    Returns None if another process holds the lock.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    file = path.open("w")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        file.close()
        return None
    return file
