"""How blocks are dealt to ranks, and a loader that can resume within an epoch."""

import math
from collections.abc import Callable, Iterator
from itertools import islice
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch.utils.data import DataLoader, DistributedSampler

from lit_entrodrop.data.blocks import PADDING_BLOCK, PackedBlocks
from lit_entrodrop.model.clean_pass import Batch


class OrderedSampler(DistributedSampler[Batch]):
    """Deal the blocks of an epoch to ranks in order, each reading once.

    Every rank gets equally many, else ranks would wait for each other for ever; where blocks run
    out, a rank gets blocks of padding, in which nothing is counted. It is a DistributedSampler
    so that Lightning leaves it in place and tells it the epoch.

    Args:
        blocks: The blocks.
        num_replicas: Number of data-parallel ranks.
        rank: This rank, from 0.
        order: Returns the blocks of an epoch, as many as there are; by default each in its place.

    >>> list(OrderedSampler(range(3), num_replicas=2, rank=1))
    [1, -1]
    """

    def __init__(
        self,
        blocks: PackedBlocks,
        num_replicas: int,
        rank: int,
        order: Callable[[int], NDArray[np.int64]] | None = None,
    ) -> None:
        super().__init__(blocks, num_replicas, rank, shuffle=False)
        self.order = order or (lambda _: np.arange(len(blocks)))

    def __iter__(self) -> Iterator[int]:  # type: ignore[override]
        own = self.order(self.epoch)[self.rank :: self.num_replicas].tolist()
        return iter(own + [PADDING_BLOCK] * (len(self) - len(own)))


def missing_batches(
    known: NDArray[np.bool_], batch_size: int, num_replicas: int = 1, rank: int = 0
) -> list[list[int]]:
    """Deal those batches to ranks in which a block is not known yet, whole and in order.

    The cut into batches depends on neither what is known nor the ranks: rounding differs with the
    shape of a batch, and so an interrupted pass ends with the same bits. Every rank gets equally
    many, if need be of padding.

    Args:
        known: [N], which blocks are known.
        batch_size: Blocks in a batch.
        num_replicas: Number of data-parallel ranks.
        rank: This rank, from 0.

    Returns:
        Blocks of each batch of this rank.

    >>> missing_batches(np.array([True, True, True, False, False]), 2)
    [[2, 3], [4]]
    """
    blocks = range(len(known))
    cut = [blocks[start : start + batch_size] for start in blocks[::batch_size]]
    missing = [list(batch) for batch in cut if not known[batch.start : batch.stop].all()]
    own = missing[rank::num_replicas]
    return own + [[PADDING_BLOCK]] * (math.ceil(len(missing) / num_replicas) - len(own))


class ResumableDataLoader(DataLoader[Batch]):
    """Load batches; a restored loader goes on in the epoch in which it was saved.

    The sampler is first asked when the first batch is, so that an epoch set in between counts.
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
        """Tell the position.

        Returns:
            The epoch and the number of its batches handed out so far.
        """
        return {"epoch": self._epoch, "batches": self._batches}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Start the next iteration where the saved one stood, if it is of the same epoch.

        Args:
            state_dict: What `state_dict` returned.
        """
        self._restored = dict(state_dict)
