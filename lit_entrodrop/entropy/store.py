"""Entropy of every token of a corpus, stored by block in a memory-mapped file.

Entropies depend on packing, so a store has the fingerprint of its blocks and refuses other blocks.
"""

import os
import tempfile
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import BinaryIO, NoReturn

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lit_entrodrop.entropy.store_file import (
    MappedRows,
    create,
    file_size,
    open_rows,
    row_checksum,
    slabs,
)
from lit_entrodrop.runs.writing import draft, naming_path
from lit_entrodrop.runtime.ranks import exchange_rows


class EntropyStore:
    """Entropies of the tokens of all blocks, fp16 in nats; NaN where unknown.

    It can store any other quantity of each token in nats, such as its loss. The values are in a
    file: the operating system keeps in memory what fits.

    Args:
        num_blocks: Number of blocks of the split, N.
        block_size: Tokens in a block, T.
        fingerprint: Content hash of the blocks.
        file: Empty file for the values. By default a temporary one without a name, which disappears
            with the process.

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
                self._use_rows(create(file, num_blocks, block_size, fingerprint))
        else:
            self._use_rows(create(file, num_blocks, block_size, fingerprint))

    def _use_rows(self, rows: MappedRows) -> None:
        self._rows = rows
        self.fresh = np.zeros(len(rows.values), dtype=np.bool_)

    @classmethod
    def temporary(
        cls, num_blocks: int, block_size: int, fingerprint: str, folder: Path
    ) -> "EntropyStore":
        """Return an empty store in an unnamed file in a folder, which is created if needed.

        Raises:
            WriteError: If the disk is full or read-only.
        """
        with naming_path(folder / "unnamed", file_size(num_blocks, block_size)):
            folder.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=folder) as file:
                return cls(num_blocks, block_size, fingerprint, file)

    @property
    def fingerprint(self) -> str:
        """Content hash of the blocks."""
        return self._rows.fingerprint

    @property
    def values(self) -> Tensor:
        """A copy of all values, [N, T] fp16."""
        return torch.from_numpy(self._rows.values.copy())

    @property
    def known(self) -> NDArray[np.bool_]:
        """Whether each block was recorded, [N] bool."""
        return self._rows.known

    def record(self, block_id: Tensor, entropy: Tensor) -> None:
        """Record the entropies of some blocks.

        Args:
            block_id: Block numbers, [B] int64 in host memory; -1 for a block of padding, which is
                not recorded.
            entropy: Entropies in host memory, [B, T] nats.
        """
        rows = entropy.detach().to(torch.float16).numpy()
        for block, row in zip(block_id.tolist(), rows, strict=True):
            if block >= 0:
                self._rows.write(block, row)
                self.fresh[block] = True

    def lookup(self, block_id: Tensor) -> Tensor:
        """Return the entropies of some blocks, [B, T] fp32; NaN where unknown.

        They are in pinned memory if `block_id`, as in `record`, is.
        """
        return _lookup(self._rows.values, block_id)

    def raise_to(self, places: NDArray[np.int64], values: NDArray[np.float16]) -> None:
        """Record some values, each unless a larger one is known.

        Args:
            places: Index of each value among those of all blocks, one block after another.
            values: Values in nats, without NaN.
        """
        np.fmax.at(self._rows.values.reshape(-1), places, values)
        for block in np.unique(places // self._rows.values.shape[1]).tolist():
            self._rows.write(block, self._rows.values[block])
            self.fresh[block] = True

    def lookup_tokens(self, places: Tensor) -> Tensor:
        """Return values by `places`, as in `raise_to`; -1 gives NaN, as `lookup` does."""
        return _lookup(self._rows.values.reshape(-1), places)

    def replace_by(self, other: "EntropyStore") -> None:
        """Replace values by those of another store of the same size, unless these are unknown."""
        for block in np.flatnonzero(other.known).tolist():
            row = other._rows.values[block]
            self._rows.write(block, np.where(np.isnan(row), self._rows.values[block], row))

    def fits(self, other: MappedRows) -> bool:
        """Return whether other rows have the same number of blocks and tokens."""
        return self._rows.values.shape == other.values.shape

    def absorb(self, other: MappedRows) -> None:
        """Copy the rows that are known in another store of the same blocks but not in this one."""
        for block in np.flatnonzero(other.known & ~self.known).tolist():
            # Another process may be writing this row: verify the copy.
            row = other.values[block].copy()
            if row_checksum(block, row.tobytes()) == other.checksums[block]:
                self._rows.write(block, row)
                self.fresh[block] = True

    def quantiles(self, count: int = 1001) -> Tensor:
        """Return evenly spaced quantiles of the known entropies, [count] fp32; NaN if none."""
        return self.quantiles_at(np.linspace(0, 1, count))

    def quantiles_at(
        self,
        shares: Sequence[float] | NDArray[np.float64],
        mask: Callable[[slice], NDArray[np.bool_]] | None = None,
    ) -> Tensor:
        """Return quantiles of the known entropies.

        Args:
            shares: Shares of the entropies, in [0, 1].
            mask: Function from a slice of the blocks to the mask of the tokens to use,
                [blocks, T] bool; all tokens by default.

        Returns:
            Entropies, [shares] fp32; NaN if none is known.
        """
        # Half precision has 2**16 values: count them instead of sorting.
        counts = np.zeros(2**16, dtype=np.int64)
        for slab in slabs(*self._rows.values.shape):
            values = self._rows.values[slab]
            chosen = values.ravel() if mask is None else values[mask(slab)]
            counts += np.bincount(chosen.view(np.uint16), minlength=2**16)
        candidates = np.arange(2**16, dtype=np.uint16).view(np.float16)
        order = np.argsort(candidates, kind="stable")
        order = order[~np.isnan(candidates[order])]
        up_to = counts[order].cumsum()
        if up_to[-1] == 0:
            return torch.full((len(shares),), torch.nan)
        places = (np.asarray(shares) * (up_to[-1] - 1)).round()
        found = candidates[order][np.searchsorted(up_to, places, side="right")]
        return torch.from_numpy(found.astype(np.float32))

    def start_epoch(self) -> None:
        """Use the values of all ranks; call it on every rank."""
        self.merge_ranks()

    def merge_ranks(self) -> None:
        """Exchange the blocks that ranks recorded since the last merge; call it on every rank."""
        for blocks, values in exchange_rows(self._rows.values, self.fresh):
            self.record(blocks, values)
        self.fresh[:] = False

    def state_dict(self) -> dict[str, Tensor | str]:
        """Return the state for a checkpoint."""
        known = torch.from_numpy(self.known)
        return {"values": self.values, "known": known, "fingerprint": self.fingerprint}

    def load_state_dict(self, state: dict[str, Tensor | str]) -> None:
        """Restore the values of a checkpoint.

        Raises:
            ValueError: If the state belongs to other blocks.
        """
        _check_fingerprint(str(state["fingerprint"]), self.fingerprint)
        values, known = state["values"], state["known"]
        assert isinstance(values, Tensor), "state_dict returns a tensor of values"
        assert isinstance(known, Tensor), "and of whether each block is known"
        for blocks in known.nonzero().flatten().split(1024):
            self.record(blocks, values[blocks])
        self.fresh[:] = False

    def save(self, path: Path) -> None:
        """Write a copy of the store to a file, atomically.

        Raises:
            WriteError: If the disk is full or read-only.
        """
        size = num_blocks, block_size = self._rows.values.shape
        with draft(path, file_size(*size)) as unfinished, open(unfinished, "x+b") as file:
            copy = EntropyStore(num_blocks, block_size, self.fingerprint, file)
            copy.absorb(self._rows)
            os.fsync(file.fileno())

    @classmethod
    def load(cls, path: Path, fingerprint: str) -> "EntropyStore":
        """Open a file for blocks of a given fingerprint; the file is never written to.

        Raises:
            ValueError: If the file is not a store, is truncated, or belongs to other blocks.
        """
        rows, damaged = open_rows(path)
        _check_fingerprint(rows.fingerprint, fingerprint)
        if damaged:
            warnings.warn(
                f"entropies: {damaged} of {len(rows.values)} blocks of {path} are damaged and "
                "count as unknown: run `lit-entrodrop score` again",
                stacklevel=2,
            )
        store = cls.__new__(cls)
        store._use_rows(rows)
        return store

    def __getstate__(self) -> NoReturn:
        # A copy would load all values into the memory of each process.
        raise TypeError("entropies: a store cannot be copied between processes: pass its path")


def _lookup(values: NDArray[np.float16], places: Tensor) -> Tensor:
    found = torch.from_numpy(values[places.clamp(min=0).numpy()]).float()
    found[places < 0] = torch.nan
    return found.pin_memory() if places.is_pinned() else found


def _check_fingerprint(found: str, expected: str) -> None:
    if found != expected:
        raise ValueError(
            f"entropies: expected those of the blocks {expected}, got those of {found}: the "
            "corpus, the tokenizer or packing has changed; run `lit-entrodrop score` again, or "
            "restore the data settings"
        )
