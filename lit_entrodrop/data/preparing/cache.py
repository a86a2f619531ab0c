"""Disk cache of packed splits: written atomically, verified when read."""

import hashlib
import json
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from lightning.pytorch.utilities import rank_zero_warn

from lit_entrodrop.data.packing.blocks import PackedBlocks
from lit_entrodrop.data.packing.chunking import Chunks
from lit_entrodrop.data.preparing.packed_splits import PackedSplit, PackedSplits
from lit_entrodrop.runs.writing import draft

ARRAYS = ("tokens", "counted", "block_starts", *Chunks._fields)
COUNTS = ("documents", "duplicates", "adjustments", "formats", "source_blocks")
INDEX = "index.json"


def write_splits(
    folder: Path, prepare: Callable[[Path], Mapping[str, PackedSplit]], room: int | None = None
) -> PackedSplits:
    """Let a function write splits to a folder, which appears complete or not at all.

    If another process writes the same folder meanwhile, the first one to finish provides it:
    a complete folder never disappears under a process that reads it.

    Args:
        folder: Path to the folder; damaged content is removed, complete content stays.
        prepare: Function that makes splits, with their arrays in folders of their names in the
            given folder.
        room: Bytes that it writes, as an estimate; None if unknown.

    Raises:
        WriteError: If the disk is full, has less room or is read-only.
    """
    if folder.exists():
        if (splits := read_splits(folder)) is not None:
            return splits
        # Another process may remove it too.
        shutil.rmtree(folder.resolve(), ignore_errors=True)
    failure: OSError | None = None
    try:
        with draft(folder, room, replace=False) as unfinished:
            unfinished.mkdir()
            entries = {name: _describe_split(each) for name, each in prepare(unfinished).items()}
            index = {"splits": entries, "digest": _digest(entries)}
            (unfinished / INDEX).write_text(json.dumps(index, indent=2))
    except OSError as error:  # such as that another process has finished first
        failure = error
    if (splits := read_splits(folder)) is None:
        expected = f"expected the cache {folder} as it was just written, got damaged files"
        raise failure or OSError(f"{expected}: check the disk")
    return splits


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


def _describe_split(split: PackedSplit) -> dict[str, Any]:
    blocks = split.blocks
    settings = {"block_size": blocks.block_size, "pad_id": blocks.pad_id}
    counts = {name: getattr(split, name) for name in COUNTS}
    return {"fingerprint": blocks.fingerprint, "settings": settings, "counts": counts}


def _read_split(folder: Path, entry: dict[str, Any]) -> PackedSplit:
    arrays = {name: np.load(folder / f"{name}.npy", mmap_mode="r") for name in ARRAYS}
    # Slices of plain arrays are faster than those of memory-mapped ones.
    chunks = Chunks(*(np.asarray(arrays.pop(name)) for name in Chunks._fields))
    blocks = PackedBlocks(**arrays, chunks=chunks, **entry["settings"])
    if blocks.fingerprint != entry["fingerprint"]:
        raise ValueError(f"the arrays in {folder.name} differ from what was written")
    return PackedSplit(blocks, **entry["counts"])
