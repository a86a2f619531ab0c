"""Order of the training blocks of a run, with the losses that it depends on."""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lit_entrodrop.data.orders import BlockOrder, Epoch, ordered_blocks
from lit_entrodrop.data.orders.block_losses import BlockLosses
from lit_entrodrop.data.packing.blocks import PADDING_BLOCK


class TrainingOrder:
    """Order the N training blocks of each epoch, by the losses of earlier epochs.

    Args:
        order: The order.
        num_blocks: Number of blocks that an epoch reads, N.
        seed: Seed of the order.
        count_epochs: Function that returns the number of epochs of the run; 0 if it has no end.
        count_blocks: Function from an epoch to the number of its blocks, at most N; N by default.

    >>> from lit_entrodrop.data.orders import Shuffled
    >>> TrainingOrder(Shuffled(), num_blocks=3, seed=0, count_epochs=lambda: 1)(0)
    array([2, 0, 1])
    """

    def __init__(
        self,
        order: BlockOrder,
        num_blocks: int,
        seed: int,
        count_epochs: Callable[[], int],
        count_blocks: Callable[[int], int] | None = None,
    ) -> None:
        self.order = order
        self.seed = seed
        self.count_epochs = count_epochs
        self.count_blocks = count_blocks or (lambda _: num_blocks)
        self._losses = BlockLosses(num_blocks) if order.reads_losses else None
        self._epoch = -1
        self._ordered_by = np.full(num_blocks, np.nan, dtype=np.float32)

    def __call__(self, epoch: int) -> NDArray[np.int64]:
        """Return the blocks of an epoch in order, [N] int64; call it on every rank.

        An epoch with fewer blocks ends with blocks of padding, -1.

        Later calls within the epoch return the same blocks.
        """
        if self._losses and epoch != self._epoch:
            self._epoch, self._ordered_by = epoch, self._losses.merge_ranks()
        losses = self._ordered_by[: self.count_blocks(epoch)].copy()
        blocks = ordered_blocks(self.order, Epoch(epoch, self.count_epochs(), self.seed, losses))
        padding = np.full(len(self._ordered_by) - len(blocks), PADDING_BLOCK)
        return np.concatenate([blocks, padding])

    def record(self, block_id: Tensor, nll: Tensor, valid: Tensor) -> None:
        """Record a batch as `BlockLosses.record` does, if the order reads losses."""
        if self._losses:
            self._losses.record(block_id, nll, valid)

    def state_dict(self) -> dict[str, Any]:
        """Return the state for a checkpoint; call it on every rank."""
        if not self._losses:
            return {}
        ordered_by = torch.from_numpy(self._ordered_by.copy())
        return {"epoch": self._epoch, "ordered_by": ordered_by, "losses": self._losses.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore the losses of a checkpoint; the state may be that of another order."""
        if self._losses and state:
            self._epoch, self._ordered_by = state["epoch"], state["ordered_by"].numpy().copy()
            self._losses.load_state_dict(state["losses"])
