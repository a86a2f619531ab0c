"""Runs steps under a clock: nothing that a case does stops the others."""

import time
from collections.abc import Sequence
from dataclasses import replace
from itertools import count
from multiprocessing.connection import wait
from pathlib import Path

from benchmarks.gpu_campaign.cases import Case, Step
from benchmarks.gpu_campaign.rows import RowFile
from benchmarks.gpu_campaign.worker import Worker

# A case that takes this many times its expected duration is stopped.
PATIENCE = 3.0
NOT_RUN = "not run: no time left"


class Runner:
    """Runs the steps of a campaign: first each in its share of the time, then what is left over.

    Args:
        rows: File of the results.
        seconds: Time for all steps.
        logs: Folder for what the processes print.
        shortest_limit: Least time limit of a case, in seconds.
    """

    def __init__(
        self, rows: RowFile, seconds: float, logs: Path, shortest_limit: float = 30.0
    ) -> None:
        logs.mkdir(parents=True, exist_ok=True)
        self._rows, self._logs, self._shortest = rows, logs, shortest_limit
        self._start = time.monotonic()
        self._end = self._start + seconds
        self._numbers = count()

    def run(self, steps: Sequence[Step]) -> None:
        """Run all steps; write a row for each case that did not run."""
        total = sum(step.share for step in steps)
        passed, left = 0.0, []
        for step in steps:
            passed += step.share / total
            deadline = self._start + passed * (self._end - self._start)
            deadline = self._end if step.is_needed else deadline
            left.append(replace(step, cases=self._run_step(step, deadline)))
        for step in left:
            for case in self._run_step(step, self._end):
                self._rows.append({"step": step.name, "case": case.name, "status": NOT_RUN})

    def _run_step(self, step: Step, deadline: float) -> list[Case]:
        """Run the cases that fit before a deadline, and return the others."""
        waiting, left = list(step.cases), []
        idle: list[Worker] = []
        busy: list[Worker] = []
        try:
            while waiting or busy:
                while waiting and len(busy) < step.parallel:
                    case = waiting.pop(0)
                    if time.monotonic() + max(case.expected, 1.0) > deadline:
                        left.append(case)
                        continue
                    log = self._logs / f"{step.name} {next(self._numbers)}.log"
                    busy.append(idle.pop() if idle else Worker(log))
                    busy[-1].assign(case, self._limit(case))
                if busy:
                    self._advance(step, busy, idle)
        finally:
            for worker in [*idle, *busy]:
                worker.close()
        return left

    def _limit(self, case: Case) -> float:
        limit = max(PATIENCE * case.expected, self._shortest)
        return min(limit, self._end - time.monotonic())

    def _advance(self, step: Step, busy: list[Worker], idle: list[Worker]) -> None:
        """Wait for the next row or for the end of a limit, and write what has come."""
        left = min(worker.deadline for worker in busy) - time.monotonic()
        ready = wait([worker.connection for worker in busy], max(left, 0.0))
        for worker in list(busy):
            assert worker.case is not None
            if worker.connection in ready:
                row, is_last = worker.receive()
            elif time.monotonic() >= worker.deadline:
                row, is_last = worker.expire(), True
            else:
                continue
            if row["status"] != "done":
                self._rows.append({"step": step.name, "case": worker.case.name, **row})
            if not is_last:
                continue
            busy.remove(worker)
            if row["status"] in ("done", "skipped"):
                idle.append(worker)
            else:
                worker.close()
