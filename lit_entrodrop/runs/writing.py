"""Files and folders of results: none is written over by halves."""

import os
from itertools import count
from pathlib import Path


def free_folder(folder: Path) -> Path:
    """Return the folder, or the first of ``folder-2``, ``folder-3``, … that does not exist.

    >>> free_folder(Path("/no/such/folder")).name
    'folder'
    """
    candidates = (folder if n == 1 else folder.with_name(f"{folder.name}-{n}") for n in count(1))
    return next(candidate for candidate in candidates if not candidate.exists())


def write_whole(path: Path, content: str | bytes) -> None:
    """Write a file of which a reader sees all or nothing, whenever this process is killed.

    Args:
        path: of the file; its folder is made.
        content: all of it; text is written as UTF-8, its line ends as they are.

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
