"""Bring entropies from the device into a store without waiting for the device."""

from collections.abc import Callable

from torch import Tensor

from lit_entrodrop.entropy.store import EntropyStore
from lit_entrodrop.runtime.async_copy import Copy, HostQueue, start_copy


def copy_to_host(block_id: Tensor, entropy: Tensor) -> Copy:
    """Start to copy the entropies ``[B, T]`` of some blocks ``[B]`` to the host, in fp16."""
    return start_copy(block_id.detach(), entropy.detach().half())


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
        self, store: EntropyStore, copy: Callable[[Tensor, Tensor], Copy] = copy_to_host
    ) -> None:
        self.store = store
        self._queue = HostQueue(store.record, copy)

    def record(self, block_id: Tensor, entropy: Tensor) -> None:
        """Keep the entropies of some blocks, now or when they have arrived.

        Args:
            block_id: ``[B]`` int64, -1 for a dummy block, which is not kept.
            entropy: ``[B, T]``, nats, on the same device.
        """
        self._queue.put(block_id, entropy)

    def flush(self) -> None:
        """Wait for what is under way, and write it."""
        self._queue.flush()
