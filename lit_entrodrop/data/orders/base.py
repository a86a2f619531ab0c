"""The contract between the data module and an order of training blocks."""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray


@dataclass(frozen=True, eq=False)
class Epoch:
    """What an order may know of the epoch that is about to be read.

    Args:
        number: Which one it is, from 0.
        count: Epochs of the whole run; 0 if it has no end.
        seed: Seed of the order.
        losses: [N] float32, the mean training loss, in nats a token, of each block when it was last
            read in an epoch before; NaN where it never was, and everywhere if the order does not
            declare `reads_losses`.
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
        """Return a source of random numbers that (seed, epoch) alone decide."""
        return torch.Generator().manual_seed(self.seed + self.number)


class BlockOrder(ABC):
    """An order in which the training blocks are read, epoch by epoch.

    Subclasses override `blocks`, a pure function: every rank calls it by itself, and so does a run
    that is resumed within the epoch. An epoch always has as many readings as there are blocks, so
    that steps, schedules and budgets are those of any other order.

    Attributes:
        reads_losses: Whether `blocks` looks at the losses; only then are they recorded.
        repeats_blocks: Whether an epoch may read a block more than once, and leave others out.
    """

    reads_losses: ClassVar[bool] = False
    repeats_blocks: ClassVar[bool] = False

    def __repr__(self) -> str:
        """Name the order and its public settings, by which a checkpoint knows it."""
        public = {name: value for name, value in vars(self).items() if not name.startswith("_")}
        settings = ", ".join(f"{name}={value!r}" for name, value in public.items())
        return f"{type(self).__module__}.{type(self).__qualname__}({settings})"

    @abstractmethod
    def blocks(self, epoch: Epoch) -> NDArray[Any]:
        """Return the blocks of an epoch in the order in which they are read.

        Args:
            epoch: What is known of it.

        Returns:
            [N] integers in 0..N-1; each once, unless the order declares `repeats_blocks`.
        """


def read_order(order: BlockOrder, epoch: Epoch) -> NDArray[np.int64]:
    """Return the blocks of an epoch, if an order keeps its contract.

    Args:
        order: The order.
        epoch: What it may know.

    Returns:
        [N] int64.

    Raises:
        ValueError: If it gives anything but N blocks, or repeats one without declaring it.
    """
    name, count = type(order).__name__, epoch.num_blocks
    blocks = np.asarray(order.blocks(epoch))
    whole = blocks.shape == (count,) and np.issubdtype(blocks.dtype, np.integer)
    if not whole or ((blocks < 0) | (blocks >= count)).any():
        raise ValueError(
            f"data.order: expected {name}.blocks to return {count} integers in 0..{count - 1}, as "
            f"an epoch has as many readings as there are blocks, got {blocks.dtype} of shape "
            f"{blocks.shape}: {blocks}"
        )
    if not order.repeats_blocks and len(np.unique(blocks)) < count:
        raise ValueError(
            f"data.order: expected {name}.blocks to return each block once, got some of them more "
            f"than once in epoch {epoch.number}: return a permutation, or set repeats_blocks to "
            "True in the class"
        )
    return blocks.astype(np.int64)
