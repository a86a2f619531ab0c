"""File locks that reveal whether another process runs a comparison or a run."""

import fcntl
from pathlib import Path
from typing import IO


def lock(path: Path) -> IO[str] | None:
    """Create a file and lock it until this process and all children that inherit it close it.

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
