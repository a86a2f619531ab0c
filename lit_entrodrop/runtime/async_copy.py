"""Asynchronous copies from the device to the host."""

from collections import deque
from collections.abc import Callable

import torch
from torch import Tensor

# Copied tensors, and the event after which their values are valid; None if they are valid now.
Copy = tuple[list[Tensor], torch.cuda.Event | None]


def start_copy(*tensors: Tensor) -> Copy:
    """Start to copy tensors of one device to the host.

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
        while self._under_way:
            arrived = self._under_way[0][1]
            if arrived is not None and not arrived.query():
                return
            self._receive(*self._under_way.popleft()[0])

    def flush(self) -> None:
        """Wait for all copies, and pass them on."""
        while self._under_way:
            tensors, arrived = self._under_way.popleft()
            if arrived is not None:
                arrived.synchronize()
            self._receive(*tensors)
