"""Data loaders over packed blocks."""

import atexit
import signal
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from multiprocessing import active_children
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import DataLoader, DistributedSampler

from lit_entrodrop.data.loading.mixed_blocks import MixedBlocks
from lit_entrodrop.data.loading.sampling import OrderedSampler, missing_batches
from lit_entrodrop.data.packing.blocks import PackedBlocks
from lit_entrodrop.model.clean_pass import Batch
from lit_entrodrop.runtime.steps import batches_per_epoch


@dataclass(frozen=True)
class Batching:
    """How blocks are divided into batches.

    Args:
        batch_size: Number of blocks in a batch of one rank.
        num_workers: Number of worker processes; 0 loads in the main process.
        num_replicas: Number of data-parallel ranks.
        rank: This rank, from 0.
    """

    batch_size: int
    num_workers: int
    num_replicas: int
    rank: int

    @property
    def blocks_per_batch(self) -> int:
        """Number of blocks in a batch over all ranks."""
        return self.batch_size * self.num_replicas

    def count(self, num_blocks: int) -> int:
        """Count the batches of one rank that cover some blocks once.

        >>> Batching(batch_size=4, num_workers=0, num_replicas=2, rank=0).count(17)
        3
        """
        return batches_per_epoch(num_blocks, self.num_replicas, self.batch_size)

    def loader_options(self) -> dict[str, Any]:
        """Return keyword arguments of a DataLoader: Lightning re-creates one from keywords only."""
        return {
            "batch_size": self.batch_size,
            "num_workers": self.num_workers,
            "persistent_workers": self.num_workers > 0,
            "worker_init_fn": _ignore_termination_signals,
            "pin_memory": torch.cuda.is_available(),
        }


class ResumableDataLoader(DataLoader[Batch]):
    """Load batches; a restored loader resumes within the epoch of its state.

    The sampler is iterated when the first batch is requested, so an epoch that is set between
    `iter` and the first batch takes effect.
    """

    _epoch = _batches = 0
    _restored: dict[str, int] | None = None

    def __iter__(self) -> Iterator[Batch]:  # type: ignore[override]
        sampler = self.sampler
        assert isinstance(sampler, DistributedSampler)
        restored, self._restored = self._restored or {}, None
        self._epoch = sampler.epoch
        self._batches = restored.get("batches", 0) if restored.get("epoch") == self._epoch else 0
        for batch in islice(super().__iter__(), self._batches, None):
            self._batches += 1
            yield batch

    def state_dict(self) -> dict[str, Any]:
        """Return the epoch and the number of its batches that were loaded."""
        return {"epoch": self._epoch, "batches": self._batches}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Start the next iteration at a saved position, if its epoch is the same."""
        self._restored = dict(state_dict)


def ordered_dataloader(blocks: PackedBlocks | MixedBlocks, batching: Batching) -> DataLoader[Batch]:
    """Load blocks in order, each once over all ranks."""
    sampler = OrderedSampler(blocks, batching.num_replicas, batching.rank)
    return DataLoader(blocks, sampler=sampler, **batching.loader_options())


def missing_dataloader(
    blocks: PackedBlocks, known: NDArray[np.bool_], block_size: int, batching: Batching
) -> tuple[DataLoader[Batch], int]:
    """Load the batches in which a block is not known yet, over all ranks.

    Args:
        blocks: The blocks.
        known: Whether each block is known, [blocks] bool.
        block_size: Number of tokens in a block for which `batching` was chosen; longer blocks get
            smaller batches.
        batching: How blocks are divided into batches.

    Returns:
        The loader, and the number of this rank's batches that are already known.
    """
    batch_size = max(1, batching.batch_size * block_size // blocks.block_size)
    shard = (batch_size, batching.num_replicas, batching.rank)
    batches = missing_batches(known, *shard)
    options = batching.loader_options()
    del options["batch_size"]
    loader = DataLoader(blocks, batch_sampler=batches, **options)
    return loader, len(missing_batches(np.zeros_like(known), *shard)) - len(batches)


def _ignore_termination_signals(_: int) -> None:
    # A signal to the process group must not end workers before the run has saved its checkpoint.
    for signum in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1):
        signal.signal(signum, signal.SIG_IGN)


@atexit.register
def _end_workers() -> None:
    # Python would wait for them forever, because they ignore the signal that it sends.
    if workers := [child for child in active_children() if child.daemon]:
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)  # PyTorch would report them as failed.
        for worker in workers:
            worker.kill()
