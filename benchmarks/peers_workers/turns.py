"""How a training process takes turns with others; imports only what the peers have too."""

import importlib.metadata
import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from time import perf_counter
from typing import Any

from benchmarks.memory import rss_peak

ANSWERS = "PEERS_ANSWERS"


class Turns:
    """Train only when told to: each line on standard input allows one more turn.

    A training loop calls :meth:`begin` before its first step and :meth:`step_done` after each. A
    turn is answered by one line of JSON on the file descriptor that the variable ``PEERS_ANSWERS``
    names: the seconds of each of its steps, from end to end, and the peak of the resident set.

    Args:
        steps: optimizer steps of a turn; the first turn has one more, so that what is logged every
            so many steps is logged within a turn.
    """

    def __init__(self, steps: int) -> None:
        self.steps = steps
        self.left = steps + 1
        self.seconds: list[float] = []
        self.last = perf_counter()
        self.answers = os.fdopen(int(os.environ[ANSWERS]), "w", buffering=1)

    def begin(self) -> None:
        """Say that all is ready, and wait for the first turn."""
        self._answer()

    def step_done(self) -> None:
        """Take the time of a step, and wait if the turn is over."""
        self.seconds.append(perf_counter() - self.last)
        if len(self.seconds) == self.left:
            self.left = self.steps
            self._answer()
        else:
            self.last = perf_counter()

    def _answer(self) -> None:
        print(json.dumps({"seconds": self.seconds, "peak": rss_peak()}), file=self.answers)
        if not sys.stdin.readline():
            # Nobody is there any more to wait for.
            os._exit(1)
        self.seconds = []
        self.last = perf_counter()


def read_settings(folder: Path) -> dict[str, Any]:
    """Return the settings that all processes share."""
    settings: dict[str, Any] = json.loads((folder.parent / "settings.json").read_text())
    return settings


def write_result(folder: Path, losses: Sequence[float], packages: Sequence[str]) -> None:
    """Leave what the framework has logged, and its versions.

    Args:
        folder: the folder of this process.
        losses: mean training loss of each turn, nats per token.
        packages: what it ran with.
    """
    versions = {package: importlib.metadata.version(package) for package in packages}
    result = {"losses": list(losses), "versions": versions}
    (folder / "result.json").write_text(json.dumps(result, indent=2) + "\n")
