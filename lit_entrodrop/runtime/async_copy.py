"""Asynchronous copies from the device to the host."""

from collections import deque
from collections.abc import Callable
from typing import Protocol

import torch
from torch import Tensor


class Event(Protocol):
    """A point in the work of a device, such as ``torch.cuda.Event``."""

    def query(self) -> bool:
        """Return whether the device has reached the point."""
        ...

    def synchronize(self) -> None:
        """Wait until the device has reached the point."""
        ...


Copy = tuple[list[Tensor], Event | None]


def start_copy(*tensors: Tensor) -> Copy:
    """Start to copy tensors of one device to the host.

    Returns:
        The copies, and the event after which their values are valid; None if they are valid now.

    >>> start_copy(torch.ones(1))
    ([tensor([1.])], None)
    """
    if not tensors[-1].is_cuda:
        return [tensor.cpu() for tensor in tensors], None
    # PyTorch copies into pinned memory, without waiting.
    copies = [tensor.to("cpu", non_blocking=True) for tensor in tensors]
    arrived = torch.cuda.Event()
    arrived.record()
    return copies, arrived


class HostQueue:
    """Queue of tensors on their way from the device to the host.

    Args:
        receive: Function that is called with the tensors of each :meth:`put`, in order.
        copy: Function that starts a copy.

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
        """Start to copy tensors of one device, and pass on all copies that have arrived."""
        self._under_way.append(self._copy(*tensors))
        while self._under_way and _has_arrived(self._under_way[0][1]):
            self._pass_on_next()

    def flush(self) -> None:
        """Wait for all copies, and pass them on."""
        while self._under_way:
            if (arrived := self._under_way[0][1]) is not None:
                arrived.synchronize()
            self._pass_on_next()

    def _pass_on_next(self) -> None:
        tensors, _ = self._under_way.popleft()
        self._receive(*tensors)


def _has_arrived(event: Event | None) -> bool:
    return event is None or event.query()
