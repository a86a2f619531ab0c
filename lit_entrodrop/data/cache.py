"""Disk cache of packed splits: written atomically, verified when read."""

import json
import os
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from lit_entrodrop.data.blocks import PackedBlocks
from lit_entrodrop.data.packed_splits import PackedSplit, PackedSplits

ARRAYS = ("tokens", "counted", "chunk_starts", "block_starts", "documents")
COUNTS = ("documents", "duplicates", "adjustments")
INDEX = "index.json"


def write_splits(folder: Path, splits: Mapping[str, PackedSplit]) -> None:
    """Write splits to a folder, replacing its content; it appears complete or not at all."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    draft = Path(tempfile.mkdtemp(prefix=f"{folder.name}.", dir=folder.parent))
    try:
        index = {name: _write_split(draft / name, split) for name, split in splits.items()}
        (draft / INDEX).write_text(json.dumps(index, indent=2))
        shutil.rmtree(folder, ignore_errors=True)
        os.replace(draft, folder)
    except OSError:
        # Another process may have written the same content meanwhile.
        if read_splits(folder) is None:
            raise
    finally:
        shutil.rmtree(draft, ignore_errors=True)


def read_splits(folder: Path) -> PackedSplits | None:
    """Open written splits, memory-mapped; None if the folder is missing, incomplete or damaged."""
    try:
        index = json.loads((folder / INDEX).read_text())
        return PackedSplits(
            {name: _read_split(folder / name, entry) for name, entry in index.items()}
        )
    except (OSError, ValueError, TypeError, AttributeError, LookupError, EOFError):
        return None


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
        raise ValueError(f"{folder} is damaged: its content differs from what was written")
    return PackedSplit(blocks, **entry["counts"])
