"""The contract of an order of training blocks."""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray


@dataclass(frozen=True, eq=False)
class Epoch:
    """The epoch that is about to be read, as an order sees it.

    Args:
        number: Number of the epoch, from 0.
        count: Number of epochs of the run; 0 if it has no end.
        seed: Seed of the order.
        losses: Mean training loss of each block at its last reading in an earlier epoch, [N]
            float32, nats per token. NaN for a block that was never read, and for all blocks if the
            order does not declare `reads_losses`.
    """

    number: int
    count: int
    seed: int
    losses: NDArray[np.float32]

    @property
    def num_blocks(self) -> int:
        """Number of training blocks, N."""
        return len(self.losses)

    def generator(self) -> torch.Generator:
        """Return a random generator that depends on (seed, epoch) alone."""
        return torch.Generator().manual_seed(self.seed + self.number)


class BlockOrder(ABC):
    """An order in which the training blocks are read, epoch by epoch.

    Subclasses override `blocks`, a pure function: every rank calls it, and so does a run that
    resumes within the epoch. An epoch has as many readings as there are blocks, so steps and
    schedules are the same for all orders.

    Attributes:
        reads_losses: Whether `blocks` uses the losses; only then are they recorded.
        repeats_blocks: Whether an epoch may read a block more than once, and leave others out.
    """

    reads_losses: ClassVar[bool] = False
    repeats_blocks: ClassVar[bool] = False

    def __repr__(self) -> str:
        """Return the class and its public settings, by which a checkpoint identifies the order."""
        public = {name: value for name, value in vars(self).items() if not name.startswith("_")}
        settings = ", ".join(f"{name}={value!r}" for name, value in public.items())
        return f"{type(self).__module__}.{type(self).__qualname__}({settings})"

    @abstractmethod
    def blocks(self, epoch: Epoch) -> NDArray[Any]:
        """Return the blocks of an epoch in the order in which they are read.

        Returns:
            Block numbers, [N] integers in 0..N-1; each once, unless the order declares
            `repeats_blocks`.
        """


def ordered_blocks(order: BlockOrder, epoch: Epoch) -> NDArray[np.int64]:
    """Return the blocks of an epoch, [N] int64, and check that the order meets its contract."""
    name, count = type(order).__name__, epoch.num_blocks
    blocks = np.asarray(order.blocks(epoch))
    whole = blocks.shape == (count,) and np.issubdtype(blocks.dtype, np.integer)
    if not whole or ((blocks < 0) | (blocks >= count)).any():
        raise ValueError(
            f"data.order: expected {name}.blocks to return {count} integers in 0..{count - 1}, one "
            f"for each training block, got {blocks.dtype} of shape {blocks.shape}: {blocks}"
        )
    if not order.repeats_blocks and len(np.unique(blocks)) < count:
        raise ValueError(
            f"data.order: expected {name}.blocks to return each block once, got repeated blocks in "
            f"epoch {epoch.number}: return a permutation, or set repeats_blocks to True in the "
            "class"
        )
    return blocks.astype(np.int64)
