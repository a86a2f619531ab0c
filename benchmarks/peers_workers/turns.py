"""Turns of a training process; imports only packages that the peers have too."""

import importlib.metadata
import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from time import perf_counter
from typing import Any

import torch

from benchmarks.memory import rss_peak

ANSWERS = "PEERS_ANSWERS"


class Turns:
    """Train by turns: each line on standard input permits one more turn.

    A training loop calls :meth:`begin` before its first step and :meth:`step_done` after each step.
    After each turn, the process writes one line of JSON to the file descriptor named by the
    variable ``PEERS_ANSWERS``: the seconds of each step, from end to end, and the peak of the
    resident set, or of PyTorch's memory on a GPU. There, only whole turns end with all work done.

    Args:
        steps: Optimizer steps per turn; the first turn has one more, so that each logging step is
            within a turn.
    """

    def __init__(self, steps: int) -> None:
        self.steps = steps
        self.left = steps + 1
        self.seconds: list[float] = []
        self.last = perf_counter()
        self.answers = os.fdopen(int(os.environ[ANSWERS]), "w", buffering=1)

    def begin(self) -> None:
        """Report readiness, and wait for the first turn."""
        self._answer()

    def step_done(self) -> None:
        """Record the time of a step, and wait if the turn is over."""
        self.seconds.append(perf_counter() - self.last)
        if len(self.seconds) == self.left:
            self.left = self.steps
            self._answer()
        else:
            self.last = perf_counter()

    def _answer(self) -> None:
        peak = rss_peak()
        if torch.cuda.is_available():
            torch.cuda.synchronize()
            peak = torch.cuda.max_memory_allocated()
        print(json.dumps({"seconds": self.seconds, "peak": peak}), file=self.answers)
        if not sys.stdin.readline():
            # The parent process has ended.
            os._exit(1)
        self.seconds = []
        self.last = perf_counter()


def read_settings(folder: Path) -> dict[str, Any]:
    """Return the settings of all processes."""
    settings: dict[str, Any] = json.loads((folder.parent / "settings.json").read_text())
    return settings


def write_result(folder: Path, losses: Sequence[float], packages: Sequence[str]) -> None:
    """Write the logged losses and the versions of packages.

    Args:
        folder: Folder of this process.
        losses: Mean training loss of each turn, nats per token.
        packages: Names of packages whose versions are recorded.
    """
    versions = {package: importlib.metadata.version(package) for package in packages}
    result = {"losses": list(losses), "versions": versions}
    (folder / "result.json").write_text(json.dumps(result, indent=2) + "\n")
