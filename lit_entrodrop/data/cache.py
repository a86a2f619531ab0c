"""Keep packed blocks on disk: written in one move, verified when read."""

import json
import os
import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from lit_entrodrop.data.blocks import PackedBlocks

ARRAYS = ("tokens", "counted", "chunk_starts", "block_starts", "documents")
COUNTS = ("documents", "duplicates", "skipped", "beyond_limit")
INDEX = "index.json"


@dataclass(frozen=True)
class PackedSplit:
    """Hold the blocks of a split and what is worth telling about them.

    Attributes:
        blocks: The blocks.
        documents: Number of documents in the blocks.
        duplicates: How many of the split's documents repeat an earlier one exactly.
        skipped: Documents left out because no token of theirs could be a label.
        beyond_limit: Documents left out by `max_train_tokens`.
    """

    blocks: PackedBlocks
    documents: int
    duplicates: int
    skipped: int = 0
    beyond_limit: int = 0

    def describe(self) -> str:
        """Tell the size of the split in one line.

        Returns:
            The line, without the name of the split.
        """
        line = (
            f"{self.documents:,} documents ({self.duplicates:,} exact duplicates), "
            f"{len(self.blocks.tokens):,} tokens in {len(self.blocks):,} blocks of "
            f"{self.blocks.block_size:,}, {self.blocks.padding:.1%} padding"
        )
        if self.skipped:
            line += f"; skipped {self.skipped:,} documents without a token to predict"
        if self.beyond_limit:
            line += f"; left out {self.beyond_limit:,} documents beyond max_train_tokens"
        return line


def write_splits(folder: Path, splits: Mapping[str, PackedSplit]) -> None:
    """Write splits into a new folder that appears complete or not at all.

    Args:
        folder: The folder; what it holds already is replaced.
        splits: The splits by name.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    draft = Path(tempfile.mkdtemp(prefix=f"{folder.name}.", dir=folder.parent))
    try:
        index = {name: _write_split(draft / name, split) for name, split in splits.items()}
        (draft / INDEX).write_text(json.dumps(index, indent=2))
        shutil.rmtree(folder, ignore_errors=True)
        os.replace(draft, folder)
    except OSError:
        # Another process may have put the same content there since.
        if read_splits(folder) is None:
            raise
    finally:
        shutil.rmtree(draft, ignore_errors=True)


def read_splits(folder: Path) -> dict[str, PackedSplit] | None:
    """Open the splits of a folder, memory-mapped.

    Args:
        folder: What `write_splits` wrote.

    Returns:
        The splits by name, or None if the folder is missing, incomplete or damaged.
    """
    try:
        index = json.loads((folder / INDEX).read_text())
        return {name: _read_split(folder / name, entry) for name, entry in index.items()}
    except (OSError, ValueError, TypeError, AttributeError, LookupError, EOFError):
        return None


def _write_split(folder: Path, split: PackedSplit) -> dict[str, Any]:
    folder.mkdir()
    for name in ARRAYS:
        np.save(folder / f"{name}.npy", getattr(split.blocks, name))
    blocks = split.blocks
    settings = {"block_size": blocks.block_size, "pad_id": blocks.pad_id}
    counts = {name: getattr(split, name) for name in COUNTS}
    return {"fingerprint": blocks.fingerprint(), "settings": settings, "counts": counts}


def _read_split(folder: Path, entry: dict[str, Any]) -> PackedSplit:
    arrays = {name: np.load(folder / f"{name}.npy", mmap_mode="r") for name in ARRAYS}
    blocks = PackedBlocks(**arrays, **entry["settings"])
    if blocks.fingerprint() != entry["fingerprint"]:
        raise ValueError(f"{folder} does not hold what was written")
    return PackedSplit(blocks, **entry["counts"])
