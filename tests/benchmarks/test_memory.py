import pytest
import torch

from benchmarks import memory
from benchmarks.memory import extra_memory

MIB = 2**20


def allocate(mebibytes: int) -> None:
    torch.ones(mebibytes * MIB // 4)


def make_zeros(mebibytes: int) -> tuple[torch.Tensor]:
    return (torch.zeros(mebibytes * MIB // 4) + 1,)


def double(values: torch.Tensor) -> torch.Tensor:
    return values * 2


def test_extra_memory_sees_what_is_freed_again():
    assert extra_memory(allocate, 64) == pytest.approx(64 * MIB, rel=0.1)


def test_extra_memory_does_not_count_the_setup():
    assert extra_memory(double, 96, setup=make_zeros) == pytest.approx(96 * MIB, rel=0.1)


def test_on_a_gpu_the_first_call_does_not_count(monkeypatch):
    events: list[str] = []
    monkeypatch.setattr(memory, "prepare", lambda threads, device: torch.device(device))
    monkeypatch.setattr(memory, "_gpu_now", lambda: events.append("now") or 100)
    monkeypatch.setattr(memory, "_gpu_peak", lambda: events.append("peak") or 164)
    setup = lambda: events.append("setup") or ()  # noqa: E731
    needed = memory._measure_peak(lambda: events.append("call"), (), setup, "cuda", 1)
    assert needed == 64
    assert events == ["setup", "call", "setup", "now", "call", "peak"]
