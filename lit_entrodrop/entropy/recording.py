"""Recording of entropies into a store, without waiting for the device."""

from collections.abc import Callable

from torch import Tensor

from lit_entrodrop.entropy.store import EntropyStore
from lit_entrodrop.runtime.async_copy import Copy, HostQueue, start_copy


def copy_to_host(block_id: Tensor, entropy: Tensor) -> Copy:
    """Start to copy block numbers [B] and their entropies [B, T] to the host, in fp16."""
    return start_copy(block_id.detach(), entropy.detach().half())


def recording_queue(
    store: EntropyStore, copy: Callable[[Tensor, Tensor], Copy] = copy_to_host
) -> HostQueue:
    """Return a queue that records entropies into a store when they arrive from the device.

    Args:
        store: Store for the entropies.
        copy: Function that starts the copy of a batch.

    >>> import torch
    >>> store = EntropyStore(1, 2, "abc")
    >>> recording_queue(store).put(torch.tensor([0]), torch.tensor([[0.5, 1.0]]))
    >>> store.lookup(torch.tensor([0]))
    tensor([[0.5000, 1.0000]])
    """
    return HostQueue(store.record, copy)
