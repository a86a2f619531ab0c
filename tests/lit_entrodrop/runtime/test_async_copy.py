import pytest
import torch
from torch import Tensor

from lit_entrodrop.entropy.store import EntropyStore
from lit_entrodrop.runtime.async_copy import Copy, HostQueue, start_copy

NEEDS_CUDA = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")


class Arrival:
    """An event that the test lets happen."""

    def __init__(self) -> None:
        self.happened = False
        self.waits = 0

    def query(self) -> bool:
        return self.happened

    def synchronize(self) -> None:
        self.waits += 1
        self.happened = True


class SlowDevice:
    """Copies whose values appear when the test lets their events happen, or waits for them."""

    def __init__(self) -> None:
        self.arrivals: list[Arrival] = []

    def copy(self, block_id: Tensor, entropy: Tensor) -> Copy:
        self.arrivals.append(Arrival())
        return [block_id, entropy], self.arrivals[-1]


def row(value: float) -> Tensor:
    return torch.full((1, 2), value)


def test_host_tensors_are_written_at_once() -> None:
    store = EntropyStore(3, 2, "abc")
    queue = HostQueue(store.record)
    entropy = torch.tensor([[1.0, 2.0], [3.0, 4.0]], requires_grad=True)
    queue.put(torch.tensor([2, -1]), entropy)
    assert store.known.tolist() == [False, False, True]
    assert store.lookup(torch.tensor([2])).tolist() == [[1.0, 2.0]]


def test_no_step_waits_and_rows_come_in_order() -> None:
    device = SlowDevice()
    store = EntropyStore(4, 2, "abc")
    queue = HostQueue(store.record, device.copy)
    for block in range(3):
        queue.put(torch.tensor([block]), row(block))
    assert not store.known.any()
    device.arrivals[0].happened = device.arrivals[2].happened = True
    queue.put(torch.tensor([3]), row(3))
    assert store.known.tolist() == [True, False, False, False]
    assert all(arrival.waits == 0 for arrival in device.arrivals)
    queue.flush()
    assert store.known.all()
    assert store.lookup(torch.arange(4))[:, 0].tolist() == [0, 1, 2, 3]
    queue.flush()
    assert max(arrival.waits for arrival in device.arrivals) == 1


@NEEDS_CUDA
def test_copy_from_the_device_does_not_wait_for_it() -> None:
    block_id, entropy = torch.tensor([1, 0]).cuda(), torch.rand(2, 512).cuda()
    torch.cuda.set_sync_debug_mode("error")
    try:
        (blocks, copied), arrived = start_copy(block_id, entropy.half())
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert copied.is_pinned()
    assert arrived is not None
    arrived.synchronize()
    torch.testing.assert_close(copied, entropy.half().cpu(), atol=0, rtol=0)
    assert blocks.tolist() == [1, 0]
