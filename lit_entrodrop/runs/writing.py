"""Atomic writes of result files, and free folder names."""

import os
from itertools import count
from pathlib import Path


def free_folder(folder: Path) -> Path:
    """Return the first of ``folder``, ``folder-2``, ``folder-3``, … that does not exist.

    >>> free_folder(Path("/no/such/folder")).name
    'folder'
    """
    candidates = (folder if n == 1 else folder.with_name(f"{folder.name}-{n}") for n in count(1))
    return next(candidate for candidate in candidates if not candidate.exists())


def write_whole(path: Path, content: str | bytes) -> None:
    """Write a file atomically: even if the process is killed, it is complete or unchanged.

    Args:
        path: Path to the file; missing folders are created.
        content: Content; text is encoded as UTF-8, without translating line ends.

    >>> from tempfile import TemporaryDirectory
    >>> with TemporaryDirectory() as folder:
    ...     write_whole(Path(folder) / "new" / "a.txt", "whole")
    ...     [path.name for path in Path(folder).glob("new/*")]
    ['a.txt']
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(f"{path.name}.part")
    with unfinished.open("wb") as file:
        file.write(content.encode() if isinstance(content, str) else content)
        file.flush()
        os.fsync(file.fileno())
    unfinished.replace(path)
