"""Orders in which ranks read blocks, and a loader that can resume within an epoch."""

import math
from collections.abc import Iterator
from itertools import islice
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader, DistributedSampler

from lit_entrodrop.data.blocks import PADDING_BLOCK, PackedBlocks

Batch = dict[str, Tensor]


class OrderedSampler(DistributedSampler[Batch]):
    """Deal blocks to ranks in order, each exactly once.

    Every rank gets equally many, else ranks would wait for each other for ever; where blocks run
    out, a rank gets blocks of padding, in which nothing is counted. It is a DistributedSampler
    so that Lightning leaves it in place.

    Args:
        blocks: The blocks.
        num_replicas: Number of data-parallel ranks.
        rank: This rank, from 0.

    >>> list(OrderedSampler(range(3), num_replicas=2, rank=1))
    [1, -1]
    """

    def __init__(self, blocks: PackedBlocks, num_replicas: int, rank: int) -> None:
        super().__init__(blocks, num_replicas, rank, shuffle=False)

    def __iter__(self) -> Iterator[int]:  # type: ignore[override]
        own = list(range(self.rank, len(self.dataset), self.num_replicas))  # type: ignore[arg-type]
        return iter(own + [PADDING_BLOCK] * (len(self) - len(own)))


class ShuffledSampler(DistributedSampler[Batch]):
    """Deal blocks to ranks in an order that depends on (seed, epoch) alone, each exactly once.

    Where blocks run out, a rank gets a block of padding; a block dealt twice would count twice, and
    its second reader might find entropies of this epoch instead of those of the last.

    >>> [list(ShuffledSampler(range(3), 2, rank, seed=0)) for rank in (0, 1)]
    [[2, 1], [0, -1]]
    """

    def __iter__(self) -> Iterator[int]:  # type: ignore[override]
        own: list[Any] = list(super().__iter__())
        last = self.rank + (len(own) - 1) * self.num_replicas
        if last >= len(self.dataset):  # type: ignore[arg-type]
            own[-1] = PADDING_BLOCK
        return iter(own)


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
