"""Files of a local source: those that are read, and those that are not, with the reason."""

from collections.abc import Iterator
from pathlib import Path

from lit_entrodrop.data.file_formats import supported_formats
from lit_entrodrop.data.file_formats.compression import COMPRESSIONS, split_suffix
from lit_entrodrop.data.sources.saved_datasets import saved_files, unread_splits

ARCHIVES = (".7z", ".rar", ".tar", ".tbz2", ".tgz", ".txz", ".zip")
# Bytes of text in a byte of a compressed file; text usually shrinks to a third or a fifth.
EXPANSION = 4
MOST_SHOWN = 10  # files


def list_files(path: Path) -> list[Path]:
    """List the files of a path that are read, sorted; the suffix may be in upper case.

    Hidden files of a folder and files in its hidden folders are left out. A folder that
    `save_to_disk` wrote has the files of one split.

    Raises:
        FileNotFoundError: If the path does not exist.
        ValueError: If the suffix is unknown, or the folder contains no supported file.
    """
    if (saved := saved_files(path)) is not None:
        return saved
    if path.is_file():
        _check_suffix(path)
        return [path]
    if not path.is_dir():
        raise FileNotFoundError(
            f"{path} does not exist: expected a file, a folder, 'hub:org/name' or 'registry:NAME'. "
            "Check the path, which is relative to the working directory."
        )
    files = [file for file in _visible_files(path) if not _unread_reason(file, path)]
    if not files:
        raise ValueError(
            f"{path} contains no supported file: expected one of {_known_suffixes()}. Add one; "
            "archives must be unpacked."
        )
    return files


def text_bytes(file: Path) -> int:
    """Estimate the bytes of text in a file."""
    compression = split_suffix(file)[1]
    return file.stat().st_size * (EXPANSION if compression else 1)


def describe_unread_files(path: Path) -> Iterator[str]:
    """Describe what is not read of a path, one line per reason, hidden files apart."""
    if splits := unread_splits(path):
        yield f"splits not read: {', '.join(splits)}"
    elif path.is_dir() and saved_files(path) is None:
        unread: dict[str, list[str]] = {}
        for file in _visible_files(path):
            if reason := _unread_reason(file, path):
                unread.setdefault(reason, []).append(str(file.relative_to(path)))
        for reason, files in unread.items():
            shown = ", ".join(files[:MOST_SHOWN]) + ", ..." * (len(files) > MOST_SHOWN)
            number = f"{len(files):,} file" + "s" * (len(files) > 1)
            yield f"{number} not read, because {reason}: {shown}"


def _visible_files(folder: Path) -> list[Path]:
    return [
        file
        for file in sorted(folder.rglob("*"))
        if file.is_file()
        and not any(part.startswith(".") for part in file.relative_to(folder).parts)
    ]


def _unread_reason(file: Path, folder: Path) -> str | None:
    """Return why files such as one of a folder are not read; None for a file that is."""
    suffix, _ = split_suffix(file)
    if suffix in ARCHIVES:
        return "archives must be unpacked"
    if suffix not in supported_formats():
        return f"the suffix is none of {_known_suffixes()}"
    if file.parent == folder and file.name.lower() == "readme.md":
        return "it describes the folder; name it in data.corpus to read it"
    return None


def _check_suffix(file: Path) -> None:
    suffix, _ = split_suffix(file)
    if suffix in ARCHIVES:
        raise ValueError(
            f"{file}: expected text or records, got an archive. Unpack it and name its folder."
        )
    if suffix not in supported_formats():
        raise ValueError(
            f"{file}: expected one of the suffixes {_known_suffixes()}, got {suffix!r}. "
            "Rename or convert the file."
        )


def _known_suffixes() -> str:
    formats, compressions = ", ".join(supported_formats()), ", ".join(COMPRESSIONS)
    return f"{formats} (or these followed by {compressions})"
