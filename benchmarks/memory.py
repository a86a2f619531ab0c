"""Peak of memory: of this process, or of one call in a fresh process."""

import contextlib
import multiprocessing
import resource
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
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
    """Return the peak of memory, in bytes, that one call needs beyond what is there before it.

    The call runs in a fresh process, which must be able to import the function. On a CPU the peak
    is that of the resident set, on a GPU that of PyTorch's allocator in the second call, as the
    first one loads libraries and may choose among kernels by trying them.

    Args:
        function: what to measure.
        args: its arguments, small ones; or those of ``setup``.
        setup: makes the arguments of the function in the fresh process, not counted.
        device: ``cpu`` or ``cuda``.
    """
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, mp_context=context) as pool:
        threads = torch.get_num_threads()
        return pool.submit(_measure_peak, function, args, setup, device, threads).result()


def rss_peak() -> int:
    """Return the peak of the resident set of this process, in bytes."""
    status = Path("/proc/self/status")
    if not status.exists():
        # macOS: bytes.
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    # Not getrusage, which on Linux may tell the size of the parent.
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
    now, peak = (_gpu_now, _gpu_peak) if on_gpu else (_reset_rss_peak, rss_peak)
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


def _reset_rss_peak() -> int:
    with contextlib.suppress(OSError):
        # Linux: from now on the peak counts from the present size.
        Path("/proc/self/clear_refs").write_text("5")
    return rss_peak()
