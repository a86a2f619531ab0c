"""Training loss of each block at its last reading."""

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lit_entrodrop.runtime.async_copy import HostQueue
from lit_entrodrop.runtime.ranks import latest


class BlockLosses:
    """Mean training loss of each of N blocks at its last reading; NaN before its first.

    >>> losses = BlockLosses(2)
    >>> losses.record(torch.tensor([1]), torch.tensor([[0.0, 1.0, 3.0]]), torch.tensor([[0, 1, 1]]))
    >>> losses.merge_ranks().tolist()
    [nan, 2.0]
    """

    def __init__(self, num_blocks: int) -> None:
        self._values = np.full(num_blocks, np.nan, dtype=np.float32)
        # Number of batches, which is the same on all ranks.
        self._time = 0
        self._when = np.zeros(num_blocks, dtype=np.int64)
        self._queue = HostQueue(self._write)

    def record(self, block_id: Tensor, nll: Tensor, valid: Tensor) -> None:
        """Record the losses of a batch, at once or when they arrive from the device.

        Args:
            block_id: Block numbers, [B] int64; -1 for a block of padding, which is not recorded.
            nll: Losses on the same device, [B, T] nats; 0 where not valid.
            valid: Whether each token counts, [B, T] bool.
        """
        mean = nll.detach().sum(1) / valid.sum(1).clamp(min=1)
        self._queue.put(block_id, mean.float())

    def merge_ranks(self) -> NDArray[np.float32]:
        """Merge the losses of all ranks and return them, [N] nats; call it on every rank."""
        self._queue.flush()
        self._values, self._when = latest(self._values, self._when)
        return self._values.copy()

    def state_dict(self) -> dict[str, Any]:
        """Return the state for a checkpoint; call it on every rank."""
        values = torch.from_numpy(self.merge_ranks())
        return {"values": values, "when": torch.from_numpy(self._when.copy()), "time": self._time}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore the losses of a checkpoint."""
        self._values = state["values"].numpy().copy()
        self._when = state["when"].numpy().copy()
        self._time = state["time"]

    def _write(self, block_id: Tensor, mean: Tensor) -> None:
        self._time += 1
        for block, loss in zip(block_id.tolist(), mean.tolist(), strict=True):
            if block >= 0:
                self._values[block] = loss
                self._when[block] = self._time
