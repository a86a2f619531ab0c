"""Bring entropies from the device into a store without waiting for the device."""

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor

from lit_entrodrop.entropy.store import EntropyStore
from lit_entrodrop.host_copy import Event, start_copy


@dataclass(frozen=True)
class Transfer:
    """A copy to the host that may still be under way.

    Attributes:
        block_id: ``[B]`` int64, in host memory.
        entropy: ``[B, T]`` fp16 nats, in host memory.
        arrived: the tensors hold their values once it is reached; None if they do already.
    """

    block_id: Tensor
    entropy: Tensor
    arrived: Event | None


def copy_to_host(block_id: Tensor, entropy: Tensor) -> Transfer:
    """Start to copy the entropies ``[B, T]`` of some blocks ``[B]`` to the host."""
    (block_id, entropy), arrived = start_copy(block_id.detach(), entropy.detach().half())
    return Transfer(block_id, entropy, arrived)


class EntropyRecorder:
    """Write entropies into a store when they have arrived from the device.

    Args:
        store: where they go.
        copy: starts the copy of a batch.

    >>> import torch
    >>> recorder = EntropyRecorder(EntropyStore(1, 2, "abc"))
    >>> recorder.record(torch.tensor([0]), torch.tensor([[0.5, 1.0]]))
    >>> recorder.store.lookup(torch.tensor([0]))
    tensor([[0.5000, 1.0000]])
    """

    def __init__(
        self, store: EntropyStore, copy: Callable[[Tensor, Tensor], Transfer] = copy_to_host
    ) -> None:
        self.store = store
        self.copy = copy
        self._under_way: deque[Transfer] = deque()

    def record(self, block_id: Tensor, entropy: Tensor) -> None:
        """Keep the entropies of some blocks, now or when they have arrived.

        Args:
            block_id: ``[B]`` int64, -1 for a dummy block, which is not kept.
            entropy: ``[B, T]``, nats, on the same device.
        """
        self._under_way.append(self.copy(block_id, entropy))
        while self._under_way and self._has_arrived(self._under_way[0]):
            self._write_next()

    def flush(self) -> None:
        """Wait for what is under way, and write it."""
        while self._under_way:
            arrived = self._under_way[0].arrived
            if arrived is not None:
                arrived.synchronize()
            self._write_next()

    def _has_arrived(self, transfer: Transfer) -> bool:
        return transfer.arrived is None or transfer.arrived.query()

    def _write_next(self) -> None:
        transfer = self._under_way.popleft()
        self.store.record(transfer.block_id, transfer.entropy)
