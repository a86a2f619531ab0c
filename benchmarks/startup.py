"""CPU time until the command line answers.

Each case is a whole process. Every round runs all cases once, in random order, and relates them to
the reference of that round: importing PyTorch, Lightning and Transformers, which `fit` needs.
"""

import os
import resource
import subprocess
import sys
from functools import partial
from pathlib import Path
from time import perf_counter
from typing import Any

from benchmarks import harness

REFERENCE = "import torch, lightning.pytorch, transformers"
PROGRAM = ("-m", "lit_entrodrop")
CASES = {
    REFERENCE: ("-c", REFERENCE),
    "python": ("-c", ""),
    "--help": (*PROGRAM, "--help"),
    "--version": (*PROGRAM, "--version"),
    "unknown command": (*PROGRAM, "reprot"),
    "regularizers": (*PROGRAM, "regularizers"),
    "import regularizers": ("-c", "import regularizers"),
    "fit --help": (*PROGRAM, "fit", "--help"),
    "fit --print_config": (*PROGRAM, "fit", "--data.corpus=x", "--print_config"),
    "fit, option refused": (*PROGRAM, "fit", "--data.corpsu=x"),
}
REFUSED = ("unknown command", "fit, option refused")


def startup(rounds: int = 5, out: str = harness.RESULTS) -> Path:
    """Measure CPU and wall time of commands that answer without training.

    Args:
        rounds: Timed rounds; each runs every case once. One more round before them warms caches.
        out: Folder of the results.
    """
    settings = {**locals()}
    measured: dict[str, list[tuple[float, float]]] = {name: [] for name in CASES}
    harness.interleaved(
        {name: partial(measure, name, measured[name]) for name in CASES}, rounds, warmup=1
    )
    # The first of each is of the warm-up.
    return harness.save("startup", settings, describe({k: v[1:] for k, v in measured.items()}), out)


def measure(name: str, times: list[tuple[float, float]]) -> None:
    """Run the process of a case, and append its CPU and wall time in seconds."""
    start, before = perf_counter(), _cpu_of_children()
    done = subprocess.run(
        [sys.executable, *CASES[name]],
        cwd=harness.ROOT,
        env={**os.environ, "PYTHONPATH": str(harness.ROOT)},
        capture_output=True,
        check=False,
    )
    times.append((_cpu_of_children() - before, perf_counter() - start))
    assert (done.returncode != 0) == (name in REFUSED), done.stderr.decode()


def describe(measured: dict[str, list[tuple[float, float]]]) -> list[dict[str, Any]]:
    """Return one row for each case: seconds, and the ratio of CPU time to the reference."""
    cpu = {name: [each for each, _ in times] for name, times in measured.items()}
    rows = []
    for name, times in measured.items():
        ratio = harness.ratio(cpu[name], cpu[REFERENCE])
        rows.append(
            {
                "case": name,
                "cpu_s": harness.summary(cpu[name])["median"],
                "cpu_s_iqr": harness.summary(cpu[name])["iqr"],
                "wall_s": harness.summary([wall for _, wall in times])["median"],
                "ratio": ratio["median"],
                "ratio_iqr": ratio["iqr"],
                "rounds": ratio["rounds"],
            }
        )
    return rows


def _cpu_of_children() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


if __name__ == "__main__":
    harness.command_line(startup)
