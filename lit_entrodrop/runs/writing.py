"""Writes that are complete or absent, errors of a full or read-only disk, and free folder names."""

import errno
import fcntl
import json
import os
import re
import shutil
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from itertools import count
from pathlib import Path
from platform import node
from tempfile import TemporaryFile
from typing import Any
from uuid import uuid4

UNFINISHED = ".part"
DRAFT = re.compile(rf".+\.(.*)-[0-9a-f]{{8}}{re.escape(UNFINISHED)}")
# Some file systems lock files on one machine only, so a draft of another machine may be in use.
ABANDONED_SECONDS = 24 * 3600
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
FORBIDDEN = (errno.EACCES, errno.EPERM, errno.EROFS)
TAKEN = (errno.EEXIST, errno.EISDIR, errno.ENOTDIR)


class WriteError(OSError):
    """A path that cannot be written; the message names it, and the needed and the free space."""


def free_folder(folder: Path) -> Path:
    """Return the first of ``folder``, ``folder-2``, ``folder-3``, … that does not exist.

    >>> free_folder(Path("/no/such/folder")).name
    'folder'
    """
    candidates = (folder if n == 1 else folder.with_name(f"{folder.name}-{n}") for n in count(1))
    return next(candidate for candidate in candidates if not candidate.exists())


def check_writable(path: Path) -> None:
    """Raise an error before hours of work if a file cannot be written after them.

    Args:
        path: Path to the file; nothing is created.

    Raises:
        WriteError: If the path is a folder, or its folder is read-only or no folder.
    """
    if path.exists() and not path.is_file() and not path.is_dir():
        return  # a device or a pipe
    with naming_path(path):
        if path.is_dir():
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
        with TemporaryFile(dir=_existing_parent(path)):
            pass


def write_whole(path: Path, content: str | bytes) -> None:
    """Write a file atomically: even if the process is killed, it is complete or unchanged.

    Args:
        path: Path to the file; missing folders are created. Links, devices and pipes are written
            through, not atomically.
        content: Content; text is encoded as UTF-8, without translating line ends.

    Raises:
        WriteError: If the disk is full or read-only.

    >>> from tempfile import TemporaryDirectory
    >>> with TemporaryDirectory() as folder:
    ...     write_whole(Path(folder) / "new" / "a.txt", "whole")
    ...     [path.name for path in Path(folder).glob("new/*")]
    ['a.txt']
    """
    encoded = content.encode() if isinstance(content, str) else content
    if path.is_symlink() or (path.exists() and not path.is_file()):
        # A device or a pipe, such as /dev/stdout, cannot be replaced, and a link should stay.
        with naming_path(path, len(encoded)):
            path.write_bytes(encoded)
        return
    with draft(path, len(encoded)) as unfinished, unfinished.open("xb") as file:
        file.write(encoded)
        file.flush()
        os.fsync(file.fileno())


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Write an object as JSON atomically, see :func:`write_whole`.

    Raises:
        ValueError: If it contains NaN or infinity, which JSON lacks.
        WriteError: If the disk is full or read-only.
    """
    text = json.dumps(content, indent=2, allow_nan=False, ensure_ascii=False)
    write_whole(path, f"{text}\n")


@contextmanager
def draft(target: Path, size: int | None = None, *, replace: bool = True) -> Iterator[Path]:
    """Provide a path at which to write a file or folder, and then move it to ``target``.

    If the block raises or the process is killed, ``target`` is unchanged. Drafts that a killed
    process left in the same folder are removed first.

    Args:
        target: Path to the file or folder, or a link to it; missing parents are created, an
            earlier one is replaced.
        size: Bytes that will be written; None if unknown.
        replace: Whether a folder replaces an earlier one that is not empty.

    Raises:
        WriteError: If the disk is full, has less room than ``size``, or is read-only.
        OSError: If the folder exists already and may not be replaced.
    """
    # A link to a folder on another disk stays one.
    target = target.resolve() if target.is_symlink() else target
    with naming_path(target, size):
        target.parent.mkdir(parents=True, exist_ok=True)
        _remove_abandoned(target.parent)
        with _locked_folder(target) as folder:
            if size is not None and size > _free_bytes(target):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            new = folder / target.name
            yield new
            if replace and new.is_dir() and target.is_dir():
                # A folder replaces only an empty one, and another process may replace it too.
                with suppress(FileNotFoundError):
                    target.replace(folder / "replaced")
            new.replace(target)


@contextmanager
def naming_path(path: Path, size: int | None = None) -> Iterator[None]:
    """Raise errors of a full or read-only disk, or of an existing path, as a WriteError.

    Args:
        path: Path that is written.
        size: Bytes that will be written; None if unknown.
    """
    try:
        yield
    except OSError as error:
        if not _is_of_writing(error, path):
            raise
        if error.errno in FORBIDDEN:
            remedy = "choose a folder that you may write to"
        elif error.errno in TAKEN:
            remedy = "choose another path"
        else:
            needed = "" if size is None else f"{size / 1e6:,.1f} MB needed, "
            remedy = f"{needed}{_free_bytes(path) / 1e6:,.1f} MB free: free disk space"
        reason = error.strerror or str(error)
        raise WriteError(f"{path}: could not be written ({reason}): {remedy}") from error


def _is_of_writing(error: OSError, path: Path) -> bool:
    # numpy reports a short write without a number.
    if isinstance(error, WriteError) or error.errno not in (None, *FULL, *FORBIDDEN, *TAKEN):
        return False
    if error.filename is None:
        return True
    # The block may also read files elsewhere.
    place, named = path.parent.absolute(), Path(os.fsdecode(error.filename)).absolute()
    return named.is_relative_to(place) or place.is_relative_to(named)


def _free_bytes(path: Path) -> int:
    return shutil.disk_usage(_existing_parent(path)).free


def _existing_parent(path: Path) -> Path:
    return next(each for each in path.absolute().parents if each.exists())


@contextmanager
def _locked_folder(target: Path) -> Iterator[Path]:
    while True:
        folder = target.with_name(f"{target.name}.{node()}-{uuid4().hex[:8]}{UNFINISHED}")
        folder.mkdir()
        with suppress(FileNotFoundError):
            descriptor = os.open(folder, os.O_RDONLY)
            with suppress(OSError):  # some file systems have no locks
                fcntl.flock(descriptor, fcntl.LOCK_EX)
            # Before the lock, another process may have removed it as abandoned.
            if folder.exists():
                break
            os.close(descriptor)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        os.close(descriptor)


def _remove_abandoned(folder: Path) -> None:
    for path in folder.glob(f"*{UNFINISHED}"):
        if not (match := DRAFT.fullmatch(path.name)):
            continue
        with suppress(OSError):
            descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                age = time.time() - path.stat().st_mtime
                if match[1] == node() or age > ABANDONED_SECONDS:
                    shutil.rmtree(path, ignore_errors=True)
            finally:
                os.close(descriptor)
