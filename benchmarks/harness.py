"""What all benchmarks share: a command line, fair timing, results that say where they come from.

On a shared machine the speed of everything drifts from second to second. So cases take turns in one
process, in a random order, and are compared round by round: what slows a round slows all its cases.
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

ROOT = Path(__file__).parents[1]
RESULTS = "benchmarks/results"
PACKAGES = ("torch", "lightning", "transformers")
# Results and pages about them do not change what is measured.
MEASURED = (".", ":!benchmarks/results", ":!docs", ":!*.md")


def command_line(benchmark: Callable[..., object]) -> None:
    """Run a benchmark with its keyword arguments as flags; its docstring explains them."""
    # Imported here, as the peers' environment has none of it.
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
        threads: CPU threads of PyTorch.
        device: ``cpu`` or ``cuda``.

    Returns:
        The device.

    Raises:
        ValueError: if there is no such device here.
    """
    if device.startswith("cuda") and not torch.cuda.is_available():
        raise ValueError(f"device: expected cpu, as PyTorch sees no GPU here, got {device}")
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
    """Time cases in turns: every round runs each case once, in a random order.

    Args:
        cases: what to time, by name.
        rounds: timed rounds, at least 1.
        warmup: rounds before those, which do not count.
        device: where the cases run; a GPU is waited for before and after each.

    Returns:
        Seconds of each case, one number a round: equal places belong to the same round.

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
    """Return how many seconds one call takes."""
    synchronize(device)
    start = perf_counter()
    case()
    synchronize(device)
    return perf_counter() - start


def synchronize(device: str | torch.device) -> None:
    """Wait until a GPU has done what it was told; a CPU always has."""
    if torch.device(device).type == "cuda":
        torch.cuda.synchronize(device)


def summary(values: Sequence[float]) -> dict[str, float]:
    """Return median, interquartile range (NaN for a single value) and number of the values.

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
    """Summarise the ratio of two cases, taken round by round.

    >>> ratio([2.0, 4.0, 60.0], [1.0, 2.0, 30.0])["median"]
    2.0
    """
    return summary([a / b for a, b in zip(numerators, denominators, strict=True)])


def save(
    name: str, settings: Mapping[str, Any], rows: list[dict[str, Any]], folder: str | Path
) -> Path:
    """Print the rows as a table and write them with all that is needed to judge them.

    Args:
        name: of the benchmark and of the file.
        settings: the arguments that it ran with.
        rows: the results, flat; lists are written, but not printed.
        folder: where the file goes.

    Returns:
        ``folder/name.json``.
    """
    import pandas as pd

    path = Path(folder) / f"{name}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    device = str(settings.get("device", "cpu"))
    # Where results go says nothing about them.
    told = {key: value for key, value in settings.items() if key not in ("out", "name")}
    record = {"benchmark": name, **provenance(device), "settings": told, "rows": rows}
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


def device_name(device: str = "cpu") -> str:
    """Return the model of the GPU or of the CPU."""
    if torch.device(device).type == "cuda":
        return torch.cuda.get_device_name(device)
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.exists() else []
    models = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return models[0] if models else platform.processor() or f"{sys.platform} CPU"


def _git(*arguments: str) -> str:
    try:
        done = subprocess.run(
            ["git", *arguments], cwd=ROOT, capture_output=True, text=True, check=True
        )
    except (OSError, subprocess.CalledProcessError):
        return ""
    return done.stdout.strip()
