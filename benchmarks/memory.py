"""Peak memory of this process, or of one call in a fresh process."""

import contextlib
import multiprocessing
import resource
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from benchmarks.harness import prepare


def extra_memory(
    function: Callable[..., object],
    *args: Any,
    setup: Callable[..., tuple[Any, ...]] | None = None,
    device: str = "cpu",
) -> int:
    """Return the peak memory of one call, in bytes, minus the memory in use before it.

    The call runs in a fresh process, which must be able to import the function. On a CPU, the peak
    is of the resident set. On a GPU, it is of PyTorch's allocator in the second call, because the
    first call loads libraries and may try several kernels.

    Args:
        function: Function to measure.
        args: Small arguments of the function, or of ``setup``.
        setup: Function that creates the arguments in the fresh process; not measured.
        device: Device, ``cpu`` or ``cuda``.
    """
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, mp_context=context) as pool:
        threads = torch.get_num_threads()
        return pool.submit(_measure_peak, function, args, setup, device, threads).result()


@dataclass
class Peak:
    """Peak memory of a block of code on a GPU.

    Args:
        gib: Peak of PyTorch's allocator in GiB; None on a CPU.
        extra_gib: Peak minus the memory in use before; None on a CPU.
    """

    gib: float | None = None
    extra_gib: float | None = None


@contextlib.contextmanager
def gpu_peak(device: str) -> Iterator[Peak]:
    """Measure the peak memory on a GPU within a block of code; on a CPU, measure nothing."""
    peak = Peak()
    if torch.device(device).type == "cpu":
        yield peak
        return
    before = _gpu_now()
    yield peak
    after = _gpu_peak()
    peak.gib, peak.extra_gib = after / 2**30, (after - before) / 2**30


def rss_peak() -> int:
    """Return the peak of the resident set of this process, in bytes."""
    status = Path("/proc/self/status")
    if not status.exists():
        # macOS: bytes.
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    # On Linux, getrusage may report the size of the parent process.
    line = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM"))
    return int(line.split()[1]) * 1024


def _measure_peak(
    function: Callable[..., object],
    args: tuple[Any, ...],
    setup: Callable[..., tuple[Any, ...]] | None,
    device: str,
    threads: int,
) -> int:
    on_gpu = prepare(threads, device).type == "cuda"
    make = setup or (lambda *own: own)
    if on_gpu:
        function(*make(*args))
    inputs = make(*args)
    now, peak = (_gpu_now, _gpu_peak) if on_gpu else (reset_rss_peak, rss_peak)
    before = now()
    result = function(*inputs)
    after = peak()
    del result
    return max(after - before, 0)


def _gpu_now() -> int:
    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats()
    return torch.cuda.memory_allocated()


def _gpu_peak() -> int:
    torch.cuda.synchronize()
    return torch.cuda.max_memory_allocated()


def reset_rss_peak() -> int:
    """Reset the peak of the resident set to its present size, where possible, and return it."""
    with contextlib.suppress(OSError):
        # On Linux, this resets the peak to the present size.
        Path("/proc/self/clear_refs").write_text("5")
    return rss_peak()
