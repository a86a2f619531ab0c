"""A process that measures cases one after another."""

import gc
import multiprocessing
import os
import resource
import signal
import sys
import time
import traceback
from contextlib import suppress
from multiprocessing.connection import Connection, wait
from pathlib import Path
from threading import Thread
from types import ModuleType
from typing import Literal

import torch

from benchmarks.gpu_campaign.cases import Case, Row, Skipped

START_METHOD: Literal["forkserver"] = "forkserver"
PRELOAD = ["benchmarks.gpu_campaign.preload"]
LOG_LINES = 12


class Worker:
    """A process of its own, forked from a server that has imported all libraries.

    Args:
        log: File for what the process prints.
    """

    def __init__(self, log: Path) -> None:
        self.log = log
        context = multiprocessing.get_context(START_METHOD)
        context.set_forkserver_preload(PRELOAD)
        self.connection, other = context.Pipe()
        self._process = context.Process(target=serve, args=(other, log), daemon=False)
        # Otherwise the process would run the caller's script again.
        script, sys.modules["__main__"] = sys.modules["__main__"], ModuleType("__main__")
        try:
            self._process.start()
        finally:
            sys.modules["__main__"] = script
        other.close()
        self.case: Case | None = None
        self.started = self.deadline = 0.0

    def assign(self, case: Case, limit: float) -> None:
        """Start a case, which may take ``limit`` seconds."""
        self.case, self.started = case, time.monotonic()
        self.deadline = self.started + limit
        self.connection.send(case)

    def receive(self) -> tuple[Row, bool]:
        """Return the next row of the case, and whether it is the last; the process has sent it."""
        try:
            row, is_last = self.connection.recv()
        except (EOFError, OSError):
            self._process.join(5)
            row, is_last = {"status": "crashed", "error": self._end()}, True
        seconds = time.monotonic() - self.started
        return {"status": "ok", "seconds": round(seconds, 2), **row}, is_last

    def expire(self) -> Row:
        """Return the row of a case that has passed its limit."""
        limit = self.deadline - self.started
        return {"status": "timed out", "seconds": round(limit, 2), "error": self.last_lines()}

    def close(self) -> None:
        """Kill the process and all that it has started."""
        assert self._process.pid is not None
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.kill()
        self._process.join()
        self.connection.close()

    def last_lines(self) -> str:
        """Return the end of what the process has printed."""
        lines = self.log.read_text(errors="replace").splitlines() if self.log.exists() else []
        return "\n".join(lines[-LOG_LINES:])

    def _end(self) -> str:
        return f"the process ended with status {self._process.exitcode}\n{self.last_lines()}"


def serve(connection: Connection, log: Path) -> None:
    """Measure the cases that come through a connection, until it closes or one fails."""
    os.setsid()
    Thread(target=_end_with_parent, daemon=True).start()
    with log.open("a") as file:
        for descriptor in (1, 2):
            os.dup2(file.fileno(), descriptor)
    with suppress(EOFError):
        while _measure(connection.recv(), connection):
            # A closed fit leaves its model in reference cycles.
            gc.collect()
            if torch.cuda.is_initialized():
                torch.cuda.empty_cache()


def _measure(case: Case, connection: Connection) -> bool:
    """Send the rows of a case; return whether the process is fit for another one."""
    print(f"--- {case.name}", flush=True)
    last: Row = {"status": "done"}
    start = _cpu_seconds()
    try:
        for row in case.measure(**case.settings):
            connection.send(({**row, "cpu_seconds": round(_cpu_seconds() - start, 2)}, False))
    except Skipped as reason:
        last = {"status": "skipped", "reason": str(reason)}
    except BaseException as error:
        # After an error of CUDA, all later calls fail.
        traceback.print_exc()
        last = {"status": "failed", "error": f"{type(error).__name__}: {error}"[:2000]}
    connection.send((last, True))
    return bool(last["status"] != "failed")


def _cpu_seconds() -> float:
    usage = map(resource.getrusage, (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return sum(each.ru_utime + each.ru_stime for each in usage)


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None
    wait([parent.sentinel])
    os.killpg(0, signal.SIGKILL)
