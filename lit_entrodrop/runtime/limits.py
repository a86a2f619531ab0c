"""Limits of time and memory for code that comes with data, such as chat templates."""

import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil

MOST_SECONDS = 2  # of processor time
MOST_BYTES = 2**28  # of memory; growth in small steps is checked about ten times a second


@contextmanager
def limited(remedy: str) -> Iterator[None]:
    """Raise an error after `MOST_SECONDS`, or if memory grows by `MOST_BYTES`.

    Only the main thread can be interrupted.

    Args:
        remedy: What to do about it, a sentence.

    Raises:
        TimeoutError: If time or memory is exceeded.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    end, at_first = time.process_time() + MOST_SECONDS, 0
    too_much = f"it takes more than {MOST_BYTES // 2**20} MiB of memory. {remedy}"

    def check(*_: Any) -> None:
        nonlocal at_first
        memory = psutil.Process().memory_info().rss
        at_first = at_first or memory
        reason = None
        if time.process_time() >= end:
            reason = f"it did not end within {MOST_SECONDS} s of processor time. {remedy}"
        elif memory > at_first + MOST_BYTES:
            reason = too_much
        if reason:
            # Else it might interrupt the cleanup, too.
            signal.setitimer(signal.ITIMER_PROF, 0)
            raise TimeoutError(reason)

    before = signal.signal(signal.SIGPROF, check)
    signal.setitimer(signal.ITIMER_PROF, MOST_SECONDS / 20, MOST_SECONDS / 20)
    try:
        with _limited_allocation():
            yield
    except MemoryError as error:
        raise TimeoutError(too_much) from error
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.signal(signal.SIGPROF, before)


@contextmanager
def _limited_allocation() -> Iterator[None]:
    """Let a single allocation of more than `MOST_BYTES` fail, which no signal interrupts."""
    if sys.platform != "linux":
        yield
        return
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    most = pages * resource.getpagesize() + MOST_BYTES
    resource.setrlimit(
        resource.RLIMIT_AS, (most if soft == resource.RLIM_INFINITY else min(most, soft), hard)
    )
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))
