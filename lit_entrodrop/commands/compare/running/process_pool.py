"""Pool of processes that run commands of the program in parallel."""

import multiprocessing
import os
import signal
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from itertools import islice
from multiprocessing import resource_tracker
from multiprocessing.process import BaseProcess
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

from lit_entrodrop.commands.compare.running.child import run_command
from lit_entrodrop.runs.locking import lock

if TYPE_CHECKING:  # it imports pandas
    from lit_entrodrop.commands.compare.running.run_progress import RunProgress

POLL_SECONDS = 0.2
# Time that an interrupted run gets to save a checkpoint.
GRACE_SECONDS = 60.0
LOG_LINES = 15
# From Ctrl-C, from a scheduler, and from a terminal that is closed.
STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@dataclass
class Task:
    """A command of the program.

    Its process locks ``lock`` while it runs, so tasks with the same lock never overlap, and appends
    its output to ``log``. ``on_start`` is called before the process starts, ``on_success`` after it
    has ended with status 0. ``started`` is on the monotonic clock, in seconds. ``is_stopped`` is
    whether :func:`stop` has ended it.
    """

    title: str
    arguments: Sequence[str]
    log: Path
    lock: Path
    on_start: Callable[[], None] = lambda: None
    on_success: Callable[[], None] = lambda: None
    progress: Callable[[], "RunProgress | None"] = lambda: None
    process: BaseProcess | None = None
    started: float = 0.0
    has_waited: bool = False
    is_stopped: bool = False


Start = Callable[[Task, dict[str, str]], BaseProcess]


def start_process(task: Task, environment: dict[str, str]) -> BaseProcess:
    """Start a command of the program in a session of its own.

    All processes are forked from one server that has imported the program once. The server runs
    nothing else, so neither threads nor CUDA are active when it forks.
    """
    # The server must outlive its children, and ends with `compare`. A child that inherits the mask
    # receives a signal that came while it was forked as soon as it unblocks it.
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["lit_entrodrop.commands.compare.running.fork_server"])
    arguments = (list(task.arguments), task.log, task.lock, environment)
    process = context.Process(target=run_command, args=arguments)
    # Otherwise the process would run the caller's script again, which may lack a `__main__` guard.
    script, sys.modules["__main__"] = sys.modules["__main__"], ModuleType("__main__")
    # It would unblock them when it starts.
    resource_tracker.ensure_running()
    unblocked = signal.pthread_sigmask(signal.SIG_BLOCK, STOP_SIGNALS)
    try:
        process.start()
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, unblocked)
        sys.modules["__main__"] = script
    return process


@dataclass(frozen=True)
class Workers:
    """Number of commands that run at once, and how each is started, in a process group of its own.

    Each command sees one of ``devices``, by its CUDA name; without them, it sees all devices.
    """

    count: int = 1
    devices: tuple[str, ...] | None = None
    start: Start = start_process


class TaskObserver:
    """Base class of objects that are notified about tasks; does nothing."""

    def on_start(self, task: Task) -> None:
        """Called when a task has started."""

    def on_wait(self, task: Task) -> None:
        """Called when another process still holds the lock of a task."""

    def on_end(self, task: Task, status: int, seconds: float) -> None:
        """Called when a task has ended."""

    def on_poll(self, running: Sequence[Task], waiting: Sequence[Task]) -> None:
        """Called several times a second."""


def run_tasks(
    tasks: Sequence[Task],
    workers: Workers,
    observer: TaskObserver,
    more: Iterable[Task] = (),
) -> list[Task]:
    """Run all tasks, several at a time, and return those that failed; the others continue.

    Args:
        tasks: Tasks to run.
        workers: How many run at once, and how each is started.
        observer: Object that is notified.
        more: Further tasks, each requested when it can start.

    Raises:
        KeyboardInterrupt: On SIGINT, SIGTERM or SIGHUP, after all running processes have ended.
    """
    if workers.count > 1:
        # The variable is read when libraries are loaded, so it is set before the first process.
        threads = max(1, (os.cpu_count() or 1) // workers.count)
        os.environ.setdefault("OMP_NUM_THREADS", str(threads))
    pool = _Pool(list(tasks), workers, observer, iter(more))
    with _stop_signals() as received:
        try:
            while not received and pool.advance():
                time.sleep(POLL_SECONDS)
        except (EOFError, OSError):
            # Ctrl-C may also have ended a fork server that was starting.
            if not received:
                raise
        finally:
            pool.end_all(received)
    if received:
        raise KeyboardInterrupt
    return pool.failed


def stop(task: Task) -> None:
    """End a running task at once, without a checkpoint; it does not count as failed."""
    assert task.process is not None
    task.is_stopped = True
    _kill_group(task.process)


def last_lines(log: Path) -> str:
    """Return the last lines of a log, empty if there is none."""
    lines = log.read_text(errors="replace").splitlines() if log.exists() else []
    return "\n".join(lines[-LOG_LINES:])


@dataclass
class _Pool:
    waiting: list[Task]
    workers: Workers
    observer: TaskObserver
    more: Iterator[Task]
    running: dict[int, Task] = field(default_factory=dict)
    failed: list[Task] = field(default_factory=list)

    def advance(self) -> bool:
        """Start and end processes; return whether any is left."""
        for slot, task in list(self.running.items()):
            assert task.process is not None
            if (status := task.process.exitcode) is not None:
                del self.running[slot]
                self._end(task, status)
        for slot in sorted(set(range(self.workers.count)) - self.running.keys()):
            if not self._start_next(slot):
                break
        self.observer.on_poll(list(self.running.values()), self.waiting)
        return bool(self.running or self.waiting)

    def end_all(self, received: Sequence[int]) -> None:
        """End all running processes; at once after a second signal to stop."""
        processes = [task.process for task in self.running.values() if task.process is not None]
        for process in processes:
            # The first rank forwards the signal to the others and saves a checkpoint.
            process.terminate()
        deadline = time.monotonic() + GRACE_SECONDS
        while any(process.exitcode is None for process in processes):
            if len(received) > 1 or time.monotonic() > deadline:
                break
            time.sleep(POLL_SECONDS)
        for process in processes:
            _kill_group(process)

    def _start_next(self, slot: int) -> bool:
        busy = {task.lock for task in self.running.values()}
        if not self.waiting:
            self.waiting.extend(islice(self.more, 1))
        for task in self.waiting:
            if task.lock in busy:
                continue
            if (locked := lock(task.lock)) is None:
                if not task.has_waited:
                    task.has_waited = True
                    self.observer.on_wait(task)
                continue
            with locked:
                task.on_start()
            devices = self.workers.devices
            environment = {"CUDA_VISIBLE_DEVICES": devices[slot]} if devices else {}
            task.process = self.workers.start(task, environment)
            task.started = time.monotonic()
            self.running[slot] = task
            self.waiting.remove(task)
            self.observer.on_start(task)
            return True
        return False

    def _end(self, task: Task, status: int) -> None:
        assert task.process is not None
        # Ranks may outlive the first one.
        _kill_group(task.process)
        if status == 0:
            task.on_success()
        elif not task.is_stopped:
            self.failed.append(task)
        self.observer.on_end(task, status, time.monotonic() - task.started)


def _kill_group(process: BaseProcess) -> None:
    assert process.pid is not None
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)
    process.kill()
    process.join()


@contextmanager
def _stop_signals() -> Iterator[list[int]]:
    """Collect the signals to stop; an exception in a handler could lose a starting process."""
    received: list[int] = []
    # A command under `nohup` ignores SIGHUP, one in the background may ignore SIGINT.
    earlier = {
        signum: signal.signal(signum, lambda signum, _: received.append(signum))
        for signum in STOP_SIGNALS
        if signal.getsignal(signum) is not signal.SIG_IGN
    }
    try:
        yield received
    finally:
        for signum, handler in earlier.items():
            signal.signal(signum, handler)
