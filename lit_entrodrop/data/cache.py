"""Disk cache of packed splits: written atomically, verified when read."""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from lightning.pytorch.utilities import rank_zero_warn

from lit_entrodrop.data.blocks import PackedBlocks
from lit_entrodrop.data.packed_splits import PackedSplit, PackedSplits
from lit_entrodrop.runs.writing import draft

ARRAYS = ("tokens", "counted", "chunk_starts", "block_starts", "documents")
COUNTS = ("documents", "duplicates", "adjustments")
INDEX = "index.json"


def write_splits(folder: Path, splits: Mapping[str, PackedSplit]) -> None:
    """Write splits to a folder, replacing its content; it appears complete or not at all.

    Raises:
        WriteError: If the disk is full or read-only.
    """
    arrays = [getattr(split.blocks, name) for split in splits.values() for name in ARRAYS]
    try:
        with draft(folder, sum(array.nbytes for array in arrays)) as unfinished:
            unfinished.mkdir()
            entries = {name: _write_split(unfinished / name, each) for name, each in splits.items()}
            index = {"splits": entries, "digest": _digest(entries)}
            (unfinished / INDEX).write_text(json.dumps(index, indent=2))
    except OSError:
        # Another process may have written the same content meanwhile.
        if read_splits(folder) is None:
            raise


def read_splits(folder: Path) -> PackedSplits | None:
    """Open written splits, memory-mapped; None if they are missing or, with a warning, damaged.

    Raises:
        PermissionError: If the user may not read it.
    """
    if not folder.exists():
        return None
    try:
        index = json.loads((folder / INDEX).read_text())
        if index["digest"] != _digest(index["splits"]):
            raise ValueError(f"{INDEX} differs from what was written")
        entries = index["splits"].items()
        return PackedSplits({name: _read_split(folder / name, entry) for name, entry in entries})
    except PermissionError:
        raise
    except Exception as error:  # a damaged header of an array raises nearly anything
        reason = f"{type(error).__name__}: {error}"
        rank_zero_warn(f"the cache {folder} is damaged ({reason}): the corpus is prepared again")
        return None


def _digest(entries: Mapping[str, Any]) -> str:
    return hashlib.blake2b(json.dumps(entries).encode(), digest_size=16).hexdigest()


def _write_split(folder: Path, split: PackedSplit) -> dict[str, Any]:
    folder.mkdir()
    for name in ARRAYS:
        np.save(folder / f"{name}.npy", getattr(split.blocks, name))
    blocks = split.blocks
    settings = {"block_size": blocks.block_size, "pad_id": blocks.pad_id}
    counts = {name: getattr(split, name) for name in COUNTS}
    return {"fingerprint": blocks.fingerprint, "settings": settings, "counts": counts}


def _read_split(folder: Path, entry: dict[str, Any]) -> PackedSplit:
    arrays = {name: np.load(folder / f"{name}.npy", mmap_mode="r") for name in ARRAYS}
    blocks = PackedBlocks(**arrays, **entry["settings"])
    if blocks.fingerprint != entry["fingerprint"]:
        raise ValueError(f"the arrays in {folder.name} differ from what was written")
    return PackedSplit(blocks, **entry["counts"])
