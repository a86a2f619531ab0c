"""Where results go without touching those before."""

from itertools import count
from pathlib import Path


def free_folder(folder: Path) -> Path:
    """Return the folder, or the first of ``folder-2``, ``folder-3``, … that does not exist.

    >>> free_folder(Path("/no/such/folder")).name
    'folder'
    """
    candidates = (folder if n == 1 else folder.with_name(f"{folder.name}-{n}") for n in count(1))
    return next(candidate for candidate in candidates if not candidate.exists())
