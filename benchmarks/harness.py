"""Command line, timing and results of all benchmarks.

The speed of a shared machine drifts from second to second. Therefore cases alternate in one
process, in random order, and are compared within rounds: a slow round slows all of its cases.
"""

import importlib.metadata
import json
import logging
import math
import os
import platform
import random
import statistics
import subprocess
import sys
import warnings
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime, timezone
from pathlib import Path
from time import perf_counter
from typing import Any

import torch

from lit_entrodrop.runtime.machine import device_name

ROOT = Path(__file__).parents[1]
RESULTS = "benchmarks/results"
PACKAGES = ("torch", "lightning", "transformers")
# Results and documentation do not affect measurements.
MEASURED = (".", ":!benchmarks/results", ":!docs", ":!*.md")


def command_line(benchmark: Callable[..., object]) -> None:
    """Run a benchmark; its keyword arguments are the flags, and its docstring is the help."""
    # Imported late, because the environment of the peers lacks them.
    from jsonargparse import auto_cli
    from transformers.utils.logging import disable_progress_bar

    from lit_entrodrop.cli.parsing import OneLineErrors

    disable_progress_bar()
    for library in ("lightning.pytorch", "lightning.fabric"):
        logging.getLogger(library).setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", module="lightning")
    spec = sys.modules["__main__"].__spec__
    prog = f"python -m {spec.name.removesuffix('.__main__')}" if spec else None
    auto_cli(benchmark, as_positional=False, parser_class=OneLineErrors, prog=prog)


def prepare(threads: int, device: str = "cpu") -> torch.device:
    """Set up the process for a benchmark: threads, seed, no model hub.

    Args:
        threads: Number of CPU threads of PyTorch.
        device: Device, ``cpu`` or ``cuda``.

    Returns:
        The device.

    Raises:
        ValueError: If the device is not available.
    """
    if device.startswith("cuda") and not torch.cuda.is_available():
        raise ValueError(f"device: expected cpu, because PyTorch finds no GPU, got {device}")
    os.environ["HF_HUB_OFFLINE"] = "1"
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    torch.set_num_threads(threads)
    torch.manual_seed(0)
    return torch.device(device)


def interleaved(
    cases: Mapping[str, Callable[[], object]],
    rounds: int,
    warmup: int = 1,
    device: str | torch.device = "cpu",
) -> dict[str, list[float]]:
    """Time alternating cases: every round runs each case once, in random order.

    Args:
        cases: Functions to time, by name.
        rounds: Number of timed rounds, at least 1.
        warmup: Number of untimed rounds before.
        device: Device of the cases; a GPU is synchronized before and after each.

    Returns:
        Seconds per round of each case; equal indices belong to the same round.

    >>> sorted(interleaved({"a": int, "b": float}, rounds=3))
    ['a', 'b']
    """
    # Imported here, as the peers' environment has none of it.
    from lit_entrodrop.runtime.progress import track

    order = random.Random(0)
    seconds: dict[str, list[float]] = {name: [] for name in cases}
    for round_number in track(range(-warmup, rounds), "Timing", unit="rounds"):
        for name in order.sample(list(cases), len(cases)):
            elapsed = stopwatch(cases[name], device)
            if round_number >= 0:
                seconds[name].append(elapsed)
    return seconds


def stopwatch(case: Callable[[], object], device: str | torch.device = "cpu") -> float:
    """Return the seconds that one call takes."""
    synchronize(device)
    start = perf_counter()
    case()
    synchronize(device)
    return perf_counter() - start


def synchronize(device: str | torch.device) -> None:
    """Wait until a GPU has finished its work."""
    if torch.device(device).type == "cuda":
        torch.cuda.synchronize(device)


def summary(values: Sequence[float]) -> dict[str, float]:
    """Return median, interquartile range (NaN for a single value) and number of values.

    >>> summary([1.0, 2.0, 3.0, 4.0, 100.0])
    {'median': 3.0, 'iqr': 2.0, 'rounds': 5}
    """
    if len(values) < 2:
        return {"median": values[0], "iqr": math.nan, "rounds": len(values)}
    lower, _, upper = statistics.quantiles(values, n=4, method="inclusive")
    return {"median": statistics.median(values), "iqr": upper - lower, "rounds": len(values)}


def milliseconds(seconds: Sequence[float]) -> dict[str, float]:
    """Return median and interquartile range of times in ms, as columns of a result.

    >>> milliseconds([0.001, 0.002, 0.003])
    {'ms': 2.0, 'ms_iqr': 1.0}
    """
    time = summary(seconds)
    return {"ms": 1e3 * time["median"], "ms_iqr": 1e3 * time["iqr"]}


def ratio(numerators: Sequence[float], denominators: Sequence[float]) -> dict[str, float]:
    """Summarize the ratio of two cases, computed round by round.

    >>> ratio([2.0, 4.0, 60.0], [1.0, 2.0, 30.0])["median"]
    2.0
    """
    return summary([a / b for a, b in zip(numerators, denominators, strict=True)])


def save(
    name: str, settings: Mapping[str, Any], rows: list[dict[str, Any]], folder: str | Path
) -> Path:
    """Print the rows as a table and write them with settings, versions and device.

    Args:
        name: Name of the benchmark and of its file.
        settings: Arguments of the benchmark.
        rows: Results as flat mappings; lists are written but not printed.
        folder: Folder for the file.

    Returns:
        ``folder/name.json``.
    """
    import pandas as pd

    path = Path(folder) / f"{name}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    device = str(settings.get("device", "cpu"))
    kept = {key: value for key, value in settings.items() if key not in ("out", "name")}
    record = {"benchmark": name, **provenance(device), "settings": kept, "rows": rows}
    path.write_text(json.dumps(record, indent=2, default=str) + "\n")
    flat = [{k: v for k, v in row.items() if not isinstance(v, list)} for row in rows]
    print(pd.DataFrame(flat).to_string(index=False, float_format="{:.4g}".format))
    print(f"{name}: {record['device']}, commit {record['commit']}; written to {path}")
    return path


def provenance(device: str = "cpu") -> dict[str, Any]:
    """Return date, commit, versions and device of a result."""
    return {
        "date": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "commit": _git("rev-parse", "--short", "HEAD") or "unknown",
        "dirty": bool(_git("status", "--porcelain", "--untracked-files=no", "--", *MEASURED)),
        "versions": {
            "python": platform.python_version(),
            **{package: importlib.metadata.version(package) for package in PACKAGES},
        },
        "device": device_name(device),
        "threads": torch.get_num_threads(),
    }


def _git(*arguments: str) -> str:
    try:
        done = subprocess.run(
            ["git", *arguments], cwd=ROOT, capture_output=True, text=True, check=True
        )
    except (OSError, subprocess.CalledProcessError):
        return ""
    return done.stdout.strip()
