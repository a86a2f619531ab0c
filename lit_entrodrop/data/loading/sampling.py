"""Sharding of blocks over ranks."""

import math
from collections.abc import Callable, Iterator, Sized
from typing import cast

import numpy as np
from numpy.typing import NDArray
from torch.utils.data import DistributedSampler

from lit_entrodrop.data.loading.repacking import Repacking
from lit_entrodrop.data.packing.blocks import PADDING_BLOCK, Block, PackedBlocks
from lit_entrodrop.model.clean_pass import Batch


class OrderedSampler(DistributedSampler[Batch]):
    """Shard the blocks of an epoch over ranks, in order.

    All ranks get the same number of blocks, to avoid a deadlock: ranks that run out get blocks of
    padding, in which no token counts. It is a DistributedSampler so that Lightning does not replace
    it and sets its epoch.

    Args:
        blocks: The blocks, or any other sequence of their number.
        num_replicas: Number of data-parallel ranks.
        rank: This rank, from 0.
        order: Function from an epoch to its N block numbers; by default the identity.

    >>> list(OrderedSampler(range(3), num_replicas=2, rank=1))
    [1, -1]
    """

    def __init__(
        self,
        blocks: Sized,
        num_replicas: int,
        rank: int,
        order: Callable[[int], NDArray[np.int64]] | None = None,
    ) -> None:
        # It uses their number alone.
        super().__init__(cast(PackedBlocks, blocks), num_replicas, rank, shuffle=False)
        self.order = order or (lambda _: np.arange(len(blocks)))

    def __iter__(self) -> Iterator[int | Block]:  # type: ignore[override]
        own = self.order(self.epoch)[self.rank :: self.num_replicas].tolist()
        return iter(own + [PADDING_BLOCK] * (len(self) - len(own)))


class RepackedSampler(OrderedSampler):
    """Yield the blocks of each epoch themselves, so that worker processes need not pack them.

    Args:
        numbers: Sampler of their numbers.
        repacking: The blocks of each epoch.
        num_blocks: Number of blocks in any epoch, at most. Numbers from it on are yielded as they
            are: they are other blocks.
    """

    def __init__(self, numbers: OrderedSampler, repacking: Repacking, num_blocks: int) -> None:
        super().__init__(range(numbers.total_size), numbers.num_replicas, numbers.rank)
        self.order, self.repacking, self.num_blocks = numbers.order, repacking, num_blocks

    def __iter__(self) -> Iterator[int | Block]:  # type: ignore[override]
        blocks = self.repacking.blocks(self.epoch)
        for number in super().__iter__():
            assert isinstance(number, int), "of an order"
            yield blocks.block(number) if number < self.num_blocks else number


def missing_batches(
    known: NDArray[np.bool_], batch_size: int, num_replicas: int = 1, rank: int = 0
) -> list[list[int]]:
    """Return this rank's batches, as block numbers, in which a block is not known yet.

    How blocks are cut into batches depends neither on `known` nor on the ranks. Rounding depends on
    the shape of a batch, so an interrupted pass ends with the same bits as an uninterrupted one.
    All ranks get the same number of batches; some may be padding.

    >>> missing_batches(np.array([True, True, True, False, False]), 2)
    [[2, 3], [4]]
    """
    blocks = range(len(known))
    cut = [blocks[start : start + batch_size] for start in blocks[::batch_size]]
    missing = [list(batch) for batch in cut if not known[batch.start : batch.stop].all()]
    own = missing[rank::num_replicas]
    return own + [[PADDING_BLOCK]] * (math.ceil(len(missing) / num_replicas) - len(own))
