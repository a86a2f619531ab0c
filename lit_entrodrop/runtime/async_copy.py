"""Copies from the device to the host for which the host does not wait."""

from collections import deque
from collections.abc import Callable
from typing import Protocol

import torch
from torch import Tensor


class Event(Protocol):
    """What tells whether the device has come to a point of its work, as ``torch.cuda.Event``."""

    def query(self) -> bool:
        """Whether it has."""
        ...

    def synchronize(self) -> None:
        """Wait until it has."""
        ...


Copy = tuple[list[Tensor], Event | None]


def start_copy(*tensors: Tensor) -> Copy:
    """Start to copy tensors of one device to the host.

    Returns:
        The copies, and the event at which they hold their values; None if they do already.

    >>> start_copy(torch.ones(1))
    ([tensor([1.])], None)
    """
    if not tensors[-1].is_cuda:
        return [tensor.cpu() for tensor in tensors], None
    # Without waiting, PyTorch copies into pinned memory.
    copies = [tensor.to("cpu", non_blocking=True) for tensor in tensors]
    arrived = torch.cuda.Event()
    arrived.record()
    return copies, arrived


class HostQueue:
    """Hand tensors over on the host, in order, when they have arrived from the device.

    Args:
        receive: what takes them.
        copy: starts the copy of what is put in at once.

    >>> import torch
    >>> queue = HostQueue(print)
    >>> queue.put(torch.ones(1))
    tensor([1.])
    """

    def __init__(
        self, receive: Callable[..., None], copy: Callable[..., Copy] = start_copy
    ) -> None:
        self._receive = receive
        self._copy = copy
        self._under_way: deque[Copy] = deque()

    def put(self, *tensors: Tensor) -> None:
        """Start to copy tensors of one device, and hand over all that has arrived by now."""
        self._under_way.append(self._copy(*tensors))
        while self._under_way and _has_arrived(self._under_way[0][1]):
            self._hand_over_next()

    def flush(self) -> None:
        """Wait for what is under way, and hand it over."""
        while self._under_way:
            if (arrived := self._under_way[0][1]) is not None:
                arrived.synchronize()
            self._hand_over_next()

    def _hand_over_next(self) -> None:
        tensors, _ = self._under_way.popleft()
        self._receive(*tensors)


def _has_arrived(event: Event | None) -> bool:
    return event is None or event.query()
