"""The order of a run's training blocks, with the losses that it depends on."""

from collections.abc import Callable
from typing import Any

import lightning as L
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lit_entrodrop.data.orders import BlockOrder, Epoch, read_order
from lit_entrodrop.data.orders.losses import BlockLosses


class Ordering:
    """Order the training blocks of each epoch, by the losses of the epochs before.

    Args:
        order: The order.
        num_blocks: Number of training blocks, N.
        seed: Seed of the order.
        count_epochs: Returns the epochs of the run.

    >>> from lit_entrodrop.data.orders import Shuffled
    >>> Ordering(Shuffled(), num_blocks=3, seed=0, count_epochs=lambda: 1)(0)
    array([2, 0, 1])
    """

    def __init__(
        self, order: BlockOrder, num_blocks: int, seed: int, count_epochs: Callable[[], int]
    ) -> None:
        self.order = order
        self.seed = seed
        self.count_epochs = count_epochs
        self._losses = BlockLosses(num_blocks) if order.reads_losses else None
        self._epoch = -1
        self._ordered_by = np.full(num_blocks, np.nan, dtype=np.float32)

    def __call__(self, epoch: int) -> NDArray[np.int64]:
        """Return the blocks of an epoch in order; to be called on every rank as it begins.

        Args:
            epoch: Its number, from 0. Asked again within the epoch, the answer is the same.

        Returns:
            [N] int64.
        """
        if self._losses and epoch != self._epoch:
            self._epoch, self._ordered_by = epoch, self._losses.merge_ranks()
        known = Epoch(epoch, self.count_epochs(), self.seed, self._ordered_by.copy())
        return read_order(self.order, known)

    def record(self, block_id: Tensor, nll: Tensor, valid: Tensor) -> None:
        """Keep the losses of a training batch for the epochs to come, if the order reads them.

        Args:
            block_id: [B] int64, -1 for a block of padding.
            nll: [B, T] nats; 0 where not valid.
            valid: [B, T] bool, which tokens count.
        """
        if self._losses:
            self._losses.record(block_id, nll, valid)

    def state_dict(self) -> dict[str, Any]:
        """Return what a checkpoint keeps; to be called on every rank."""
        if not self._losses:
            return {}
        ordered_by = torch.from_numpy(self._ordered_by.copy())
        return {"epoch": self._epoch, "ordered_by": ordered_by, "losses": self._losses.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take over the losses of a checkpoint, and those that its epoch was ordered by.

        Args:
            state: What `state_dict` returned, of this order or of another.
        """
        if self._losses and state:
            self._epoch, self._ordered_by = state["epoch"], state["ordered_by"].numpy().copy()
            self._losses.load_state_dict(state["losses"])


def count_epochs(trainer: L.Trainer | None) -> int:
    """Return how many epochs a trainer that has its data runs; 0 if they have no end."""
    if trainer is None:
        return 0
    steps = -(-trainer.num_training_batches // trainer.accumulate_grad_batches)
    bounds = [-(-trainer.max_steps // steps)] if trainer.max_steps > 0 else []
    if trainer.max_epochs not in (None, -1):
        bounds.append(trainer.max_epochs)
    return int(min(bounds, default=0))
