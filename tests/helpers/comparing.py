"""Comparisons whose runs are forked, as a fresh interpreter takes seconds to import the program."""

import io
import os
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import yaml
from rich.console import Console

from lit_entrodrop.commands.compare.comparing import compare
from lit_entrodrop.commands.compare.planning.settings import parse_settings
from lit_entrodrop.commands.compare.running.child import run_command
from lit_entrodrop.commands.compare.running.process_pool import Task, Workers
from tests.helpers.processes import fork
from tests.helpers.tiny import Tiny

ARMS: dict[str, Any] = {
    "plain": [],
    "entrodrop": {
        "configs": ["configs/regularizers/entrodrop.yaml"],
        "strengths": {"curriculum.init_args.max": [0.4, 0.8]},
    },
}


def start_forked(task: Task, environment: dict[str, str]) -> BaseProcess:
    """Start a command as `process_pool.start_process` does, by a fork of this process."""
    return fork(_run, task, environment)


def _run(task: Task, environment: dict[str, str]) -> None:
    for name in os.listdir("/proc/self/fd"):
        with suppress(OSError):
            # The fork server does not inherit the lock of the comparison.
            if os.readlink(f"/proc/self/fd/{name}").endswith("/lock"):
                os.close(int(name))
    task.log.parent.mkdir(parents=True, exist_ok=True)
    # pytest replaces both by files of its own.
    sys.stdout = sys.stderr = open(task.log, "a", buffering=1)  # noqa: SIM115
    run_command(task.arguments, task.log, task.lock, environment)


def content(tiny: Tiny, **changes: Any) -> dict[str, Any]:
    """Return the config of a comparison on the tiny model."""
    _, base, _, own = tiny.config()
    defaults: dict[str, Any] = {"base": [base, own], "arms": ARMS, "seeds": [0, 1]}
    return {**defaults, **changes}


def compared(
    tiny: Tiny, output: Path, workers: int = 1, imported: Sequence[Path] = (), **changes: Any
) -> tuple[dict[str, Any], str]:
    """Run a comparison on the tiny model; return its results and what it has told."""
    told = io.StringIO()
    settings = parse_settings(content(tiny, **changes))
    console = Console(file=told, width=170)
    started = Workers(workers, start=start_forked)
    return compare(settings, output, started, console, imported), told.getvalue()


def write_config(path: Path, settings: Mapping[str, Any]) -> Path:
    """Write the config of a comparison."""
    path.write_text(yaml.safe_dump(dict(settings), sort_keys=False))
    return path


def times(folder: Path) -> dict[str, int]:
    """Return when each file of a run was written."""
    files = (path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): path.stat().st_mtime_ns for path in files}
