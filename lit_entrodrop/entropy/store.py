"""The entropy of every token of a corpus, kept by block in a memory-mapped file.

Entropies depend on packing, so a store knows the fingerprint of the blocks that it belongs to, and
refuses others.
"""

import os
import tempfile
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import BinaryIO, NoReturn
from uuid import uuid4

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lit_entrodrop.entropy.file import MappedRows, create, open_rows, row_checksum, slabs
from lit_entrodrop.runtime.ranks import exchange_rows


class EntropyStore:
    """Entropies of the tokens of all blocks, fp16 in nats; NaN where unknown.

    Or losses: any number of each token that is measured in nats.

    The values live in a file, not in memory: the system keeps in memory what it has room for.

    Args:
        num_blocks: number of blocks of the split, N.
        block_size: tokens per block, T.
        fingerprint: content hash of the blocks.
        file: empty file to keep the values in; by default a temporary one that has no name, so
            that it ends with the process.

    >>> store = EntropyStore(2, 3, "abc")
    >>> store.record(torch.tensor([1]), torch.tensor([[0.5, 1.0, 1.5]]))
    >>> store.lookup(torch.tensor([1, 0]))
    tensor([[0.5000, 1.0000, 1.5000],
            [   nan,    nan,    nan]])
    """

    def __init__(
        self, num_blocks: int, block_size: int, fingerprint: str, file: BinaryIO | None = None
    ) -> None:
        if file is None:
            with tempfile.TemporaryFile() as file:
                self._keep(create(file, num_blocks, block_size, fingerprint))
        else:
            self._keep(create(file, num_blocks, block_size, fingerprint))

    def _keep(self, rows: MappedRows) -> None:
        self._rows = rows
        self.fresh = np.zeros(len(rows.values), dtype=np.bool_)

    @classmethod
    def temporary(
        cls, num_blocks: int, block_size: int, fingerprint: str, folder: Path
    ) -> "EntropyStore":
        """Return a blank store in a nameless file of a folder, which is made if need be."""
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder) as file:
            return cls(num_blocks, block_size, fingerprint, file)

    @property
    def fingerprint(self) -> str:
        """Content hash of the blocks."""
        return self._rows.fingerprint

    @property
    def values(self) -> Tensor:
        """A copy of all values, ``[N, T]`` fp16."""
        return torch.from_numpy(self._rows.values.copy())

    @property
    def known(self) -> NDArray[np.bool_]:
        """Which blocks have been recorded, ``[N]``."""
        return self._rows.known

    def record(self, block_id: Tensor, entropy: Tensor) -> None:
        """Keep the entropies of some blocks.

        Args:
            block_id: ``[B]`` int64, in host memory; -1 stands for a dummy block and is not kept.
            entropy: ``[B, T]``, nats, in host memory.
        """
        rows = entropy.detach().to(torch.float16).numpy()
        for block, row in zip(block_id.tolist(), rows, strict=True):
            if block >= 0:
                self._rows.write(block, row)
                self.fresh[block] = True

    def lookup(self, block_id: Tensor) -> Tensor:
        """Return the entropies of some blocks; NaN where unknown.

        Args:
            block_id: ``[B]`` int64, in host memory; -1 stands for a dummy block.

        Returns:
            ``[B, T]`` fp32, in pinned memory if the ids are.
        """
        found = torch.from_numpy(self._rows.values[block_id.clamp(min=0).numpy()]).float()
        found = found.masked_fill(block_id[:, None] < 0, torch.nan)
        return found.pin_memory() if block_id.is_pinned() else found

    def fits(self, other: MappedRows) -> bool:
        """Whether other entropies are of as many blocks and tokens."""
        return self._rows.values.shape == other.values.shape

    def absorb(self, other: MappedRows) -> None:
        """Take over the known rows of other entropies of the same blocks."""
        for block in np.flatnonzero(other.known & ~self.known).tolist():
            # Another process may be writing to it, so that the copy counts and not what it was.
            row = other.values[block].copy()
            if row_checksum(block, row.tobytes()) == other.checksums[block]:
                self._rows.write(block, row)
                self.fresh[block] = True

    def quantiles(self, count: int = 1001) -> Tensor:
        """Return evenly spaced quantiles of the known entropies, ``[count]`` fp32; NaN if none."""
        return self.quantiles_at(np.linspace(0, 1, count))

    def quantiles_at(self, shares: Sequence[float] | NDArray[np.float64]) -> Tensor:
        """Return quantiles of the known entropies, ``[shares]`` fp32; NaN if none is known.

        Args:
            shares: each in [0, 1].
        """
        # There are only so many values in half precision: to count them takes no sorting.
        counts = np.zeros(2**16, dtype=np.int64)
        for slab in slabs(*self._rows.values.shape):
            counts += np.bincount(self._rows.values[slab].ravel().view(np.uint16), minlength=2**16)
        candidates = np.arange(2**16, dtype=np.uint16).view(np.float16)
        order = np.argsort(candidates, kind="stable")
        order = order[~np.isnan(candidates[order])]
        up_to = counts[order].cumsum()
        if up_to[-1] == 0:
            return torch.full((len(shares),), torch.nan)
        places = (np.asarray(shares) * (up_to[-1] - 1)).round()
        found = candidates[order][np.searchsorted(up_to, places, side="right")]
        return torch.from_numpy(found.astype(np.float32))

    def merge_ranks(self) -> None:
        """Take over what other ranks have recorded since the last merge."""
        for blocks, values in exchange_rows(self._rows.values, self.fresh):
            self.record(blocks, values)
        self.fresh[:] = False

    def state_dict(self) -> dict[str, Tensor | str]:
        """Return what a checkpoint keeps."""
        return {"values": self.values, "fingerprint": self.fingerprint}

    def load_state_dict(self, state: dict[str, Tensor | str]) -> None:
        """Take over the values of a checkpoint.

        Raises:
            ValueError: if the state belongs to other blocks.
        """
        _check_fingerprint(str(state["fingerprint"]), self.fingerprint)
        values = state["values"]
        assert isinstance(values, Tensor), "a state dict holds a tensor of values"
        known = (~values.isnan()).any(1).nonzero().flatten()
        for blocks in known.split(1024):
            self.record(blocks, values[blocks])
        self.fresh[:] = False

    def save(self, path: Path) -> None:
        """Write a copy of the store as a file, all or nothing."""
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_name(f"{uuid4().hex}.tmp")
        try:
            with open(temporary, "x+b") as file:
                num_blocks, block_size = self._rows.values.shape
                copy = EntropyStore(num_blocks, block_size, self.fingerprint, file)
                copy.absorb(self._rows)
                os.fsync(file.fileno())
            os.replace(temporary, path)
        finally:
            temporary.unlink(missing_ok=True)

    @classmethod
    def load(cls, path: Path, fingerprint: str) -> "EntropyStore":
        """Open a finished file for blocks of a given fingerprint; it is not written to.

        Raises:
            ValueError: if the file is no store, is cut short, or belongs to other blocks.
        """
        rows, torn = open_rows(path)
        _check_fingerprint(rows.fingerprint, fingerprint)
        if torn:
            warnings.warn(
                f"entropies: {torn} of {len(rows.values)} blocks of {path} are damaged and count "
                "as unknown: score again",
                stacklevel=2,
            )
        store = cls.__new__(cls)
        store._keep(rows)
        return store

    def __getstate__(self) -> NoReturn:
        # A copy would hold all values in memory, once in every process that gets one.
        raise TypeError("entropies: a store is not copied between processes: pass its path")


def _check_fingerprint(found: str, expected: str) -> None:
    if found != expected:
        raise ValueError(
            f"entropies: expected those of the blocks {expected}, got those of {found}: corpus, "
            "tokenizer or packing have changed since; score again with `lit-entrodrop score`, or "
            "restore the data settings"
        )
