"""Folders that `save_to_disk` of `datasets` wrote, with one dataset or several splits."""

import json
import re
from pathlib import Path

SPLITS, STATE, INFO = "dataset_dict.json", "state.json", "dataset_info.json"
DEFAULT_SPLIT = "train"

_WITH_SPLIT = re.compile(r"(.+)\[([^\[\]]+)\]")


def saved_files(path: Path) -> list[Path] | None:
    """Return the files of a saved dataset in order; None if a path names no such dataset.

    Args:
        path: Path to a folder; for one with splits, it may end with the name of a split, as in
            `folder[test]`. The default split is "train".

    Raises:
        ValueError: If there is no such split, or a file of the dataset is missing.
    """
    folder, split = _parse(path)
    if splits := saved_splits(folder):
        chosen = split or DEFAULT_SPLIT
        if chosen not in splits:
            raise ValueError(
                f"{folder}: expected one of the splits {', '.join(splits)}, got {chosen!r}. "
                f"Name one, for example {folder}[{splits[0]}]."
            )
        folder /= chosen
    elif split:
        if not folder.exists():
            return None
        raise ValueError(
            f"{path}: expected a folder with splits, which save_to_disk wrote with {SPLITS}, got "
            f"{folder} without it. Remove [{split}]."
        )
    if not (folder / STATE).is_file() or not (folder / INFO).is_file():
        return None
    files = [folder / name for name in _read_names(folder / STATE)]
    for file in files:
        if not file.is_file():
            raise ValueError(
                f"{folder}: expected the file {file.name}, which {STATE} names, got none. Copy or "
                "save the dataset again."
            )
    return files


def saved_splits(folder: Path) -> list[str]:
    """Return the names of the splits of a saved dataset; none for any other folder."""
    return _read_names(folder / SPLITS) if (folder / SPLITS).is_file() else []


def unread_splits(path: Path) -> list[str]:
    """Return the splits of a saved dataset that a path does not name."""
    folder, split = _parse(path)
    return [name for name in saved_splits(folder) if name != (split or DEFAULT_SPLIT)]


def _read_names(index: Path) -> list[str]:
    """Read the names of splits or of data files, which are siblings of an index.

    Raises:
        ValueError: If the index is damaged, or has none.
    """
    try:
        content = json.loads(index.read_text(encoding="utf-8"))
        if index.name == SPLITS:
            names = list(content["splits"])
        else:
            names = [file["filename"] for file in content["_data_files"]]
        if names and all(Path(name).name == name for name in names):
            return names
    except (ValueError, LookupError, TypeError):
        pass
    raise ValueError(
        f"{index}: expected what save_to_disk writes, got a damaged file. Copy or save the "
        "dataset again."
    )


def _parse(path: Path) -> tuple[Path, str | None]:
    match = None if path.exists() else _WITH_SPLIT.fullmatch(str(path))
    return (Path(match[1]), match[2]) if match else (path, None)
