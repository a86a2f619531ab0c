"""Copies from the device to the host for which the host does not wait."""

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


def start_copy(*tensors: Tensor) -> tuple[list[Tensor], Event | None]:
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
