"""Run commands of the program side by side, and end them when this process is told to end."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, Protocol

POLL_SECONDS = 0.2
# How long a run that is told to end may take to keep a checkpoint.
GRACE_SECONDS = 60.0
TOLD_LINES = 15
# Beside SIGINT: the scheduler, and the terminal that is closed.
TOLD_TO_END = (signal.SIGTERM, signal.SIGHUP)


@dataclass
class Job:
    """A command of the program.

    Args:
        title: what it does, in words.
        arguments: of the program.
        log: file to which what it says is added.
        folder: that it works in; of the jobs of one folder, one runs at a time.
        acquire: gives an open file that the process keeps open, by which others know that it runs;
            None while another process holds it.
        on_success: called once it has ended with status 0.
        progress: says how far it is.
        process: the command, once it is started.
        started: when.
        has_waited: whether another process was found at it.
    """

    title: str
    arguments: Sequence[str]
    log: Path
    folder: Path
    acquire: Callable[[], IO[str] | None]
    on_success: Callable[[], None] = lambda: None
    progress: Callable[[], str] = str
    process: "Process | None" = None
    started: float = field(default_factory=time.monotonic)
    has_waited: bool = False


class Process(Protocol):
    """What is used of ``subprocess.Popen``."""

    pid: int

    def poll(self) -> int | None:
        """Return the exit status, None while it runs."""

    def terminate(self) -> None:
        """Send SIGTERM."""

    def wait(self, timeout: float | None = None) -> int:
        """Wait until it has ended."""


Start = Callable[[Job, IO[str], dict[str, str]], Process]


def start_program(job: Job, held: IO[str], environment: dict[str, str]) -> Process:
    """Start a command of the program in a session of its own.

    Args:
        job: the command.
        held: an open file, which it keeps open.
        environment: its variables.
    """
    job.log.parent.mkdir(parents=True, exist_ok=True)
    with job.log.open("a") as log:
        # Ctrl-C at the terminal reaches it through this process alone.
        return subprocess.Popen(
            [sys.executable, "-m", "lit_entrodrop", *job.arguments],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            env=environment,
            pass_fds=[held.fileno()],
            start_new_session=True,
        )


@dataclass(frozen=True)
class Workers:
    """How many commands run at once, and on which devices.

    Args:
        count: of commands.
        devices: of CUDA, one for each of them; None leaves them all to each.
        start: starts a command in a process group of its own.
    """

    count: int = 1
    devices: tuple[str, ...] | None = None
    start: Start = start_program

    def environment(self, slot: int) -> dict[str, str]:
        """Return the environment variables of a command.

        Args:
            slot: number of the worker, from 0.
        """
        variables = dict(os.environ)
        # Threads of several runs would wait for each other's cores.
        if self.count > 1 and "OMP_NUM_THREADS" not in variables:
            variables["OMP_NUM_THREADS"] = str(max(1, (os.cpu_count() or 1) // self.count))
        if self.devices is not None:
            variables["CUDA_VISIBLE_DEVICES"] = self.devices[slot]
        return variables


class Watcher:
    """Is told how jobs go; this one does nothing."""

    def on_start(self, job: Job) -> None:
        """A job has started."""

    def on_wait(self, job: Job) -> None:
        """A job waits for a process of an earlier comparison, which is at it."""

    def on_end(self, job: Job, status: int, seconds: float) -> None:
        """A job has ended."""

    def on_poll(self, running: Sequence[Job]) -> None:
        """Some time has passed."""


def run_jobs(jobs: Sequence[Job], workers: Workers, watcher: Watcher) -> list[Job]:
    """Run all jobs, some at a time.

    Args:
        jobs: in the order in which they start.
        workers: how many at once.
        watcher: is told how they go.

    Returns:
        Those that failed; the others are done all the same.

    Raises:
        KeyboardInterrupt: on SIGINT, SIGTERM or SIGHUP, once all that ran were told and have ended.
    """
    pool = _Pool(list(jobs), workers, watcher)
    with _interrupt_when_told():
        try:
            while pool.waiting or pool.running:
                pool.advance()
                time.sleep(POLL_SECONDS)
        finally:
            pool.end_all()
    return pool.failed


def told(log: Path) -> str:
    """Return the last lines of a log."""
    lines = log.read_text(errors="replace").splitlines() if log.exists() else []
    return "\n".join(lines[-TOLD_LINES:])


@dataclass
class _Pool:
    waiting: list[Job]
    workers: Workers
    watcher: Watcher
    running: dict[int, Job] = field(default_factory=dict)
    failed: list[Job] = field(default_factory=list)

    def advance(self) -> None:
        for slot, job in list(self.running.items()):
            assert job.process is not None
            if (status := job.process.poll()) is not None:
                del self.running[slot]
                self._end(job, status)
        for slot in sorted(set(range(self.workers.count)) - self.running.keys()):
            if not self._start_next(slot):
                break
        self.watcher.on_poll(list(self.running.values()))

    def end_all(self) -> None:
        processes = [job.process for job in self.running.values() if job.process is not None]
        for process in processes:
            # The first rank tells the others, and keeps a checkpoint.
            process.terminate()
        deadline = time.monotonic() + GRACE_SECONDS
        for process in processes:
            with suppress(subprocess.TimeoutExpired):
                process.wait(max(0.1, deadline - time.monotonic()))
            _kill_group(process)

    def _start_next(self, slot: int) -> bool:
        busy = {job.folder for job in self.running.values()}
        for job in self.waiting:
            if job.folder in busy:
                continue
            held = job.acquire()
            if held is None:
                self._wait(job)
                continue
            with held:
                job.process = self.workers.start(job, held, self.workers.environment(slot))
            job.started = time.monotonic()
            self.running[slot] = job
            self.waiting.remove(job)
            self.watcher.on_start(job)
            return True
        return False

    def _wait(self, job: Job) -> None:
        if not job.has_waited:
            job.has_waited = True
            self.watcher.on_wait(job)

    def _end(self, job: Job, status: int) -> None:
        assert job.process is not None
        # Ranks that outlive the first one.
        _kill_group(job.process)
        if status == 0:
            job.on_success()
        else:
            self.failed.append(job)
        self.watcher.on_end(job, status, time.monotonic() - job.started)


def _kill_group(process: Process) -> None:
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


@contextmanager
def _interrupt_when_told() -> Iterator[None]:
    def interrupt(*_: Any) -> None:
        raise KeyboardInterrupt

    earlier = {signum: signal.signal(signum, interrupt) for signum in TOLD_TO_END}
    try:
        yield
    finally:
        for signum, handler in earlier.items():
            signal.signal(signum, handler)
