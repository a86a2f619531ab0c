"""Comparisons whose runs are forked, as a fresh interpreter takes seconds to import the program."""

import io
import os
import signal
import sys
from collections.abc import Mapping
from contextlib import suppress
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import IO, Any

import yaml
from rich.console import Console

from lit_entrodrop.cli.main import main
from lit_entrodrop.commands.compare.comparing import compare
from lit_entrodrop.commands.compare.processes import Job, Workers
from lit_entrodrop.commands.compare.settings import parse_settings
from tests.helpers.processes import fork
from tests.helpers.tiny import Tiny

ARMS: dict[str, Any] = {
    "plain": [],
    "entrodrop": {
        "configs": ["configs/regularizers/entrodrop.yaml"],
        "strengths": {"curriculum.init_args.max": [0.4, 0.8]},
    },
}


class Forked:
    """A forked process, used like ``subprocess.Popen``."""

    def __init__(self, process: BaseProcess) -> None:
        assert process.pid is not None
        self.pid = process.pid
        self._process = process

    def poll(self) -> int | None:
        return self._process.exitcode

    def terminate(self) -> None:
        self._process.terminate()

    def wait(self, timeout: float | None = None) -> int:
        self._process.join(timeout)
        return self._process.exitcode or 0


def start_forked(job: Job, held: IO[str], environment: dict[str, str]) -> Forked:
    """Start a command of the program as `processes.start_program` does."""
    job.log.parent.mkdir(parents=True, exist_ok=True)
    child = Forked(fork(_run, job, held.fileno(), environment))
    # The child does so too, but may come to it too late.
    with suppress(PermissionError, ProcessLookupError):
        os.setpgid(child.pid, child.pid)
    return child


def _run(job: Job, held: int, environment: dict[str, str]) -> None:
    with suppress(PermissionError):
        os.setpgid(0, 0)
    for signum in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(signum, signal.SIG_DFL)
    for name in os.listdir("/proc/self/fd"):
        with suppress(OSError):
            # A new program would not inherit the lock of the comparison.
            if int(name) != held and os.readlink(f"/proc/self/fd/{name}").endswith("/lock"):
                os.close(int(name))
    sys.stdout = sys.stderr = open(job.log, "a", buffering=1)  # noqa: SIM115
    for descriptor in (1, 2):
        os.dup2(sys.stdout.fileno(), descriptor)
    os.environ.clear()
    os.environ.update(environment)
    main(job.arguments)


def content(tiny: Tiny, **changes: Any) -> dict[str, Any]:
    """Return the config of a comparison on the tiny model."""
    _, base, _, own = tiny.config()
    defaults: dict[str, Any] = {"base": [base, own], "arms": ARMS, "seeds": [0, 1]}
    return {**defaults, **changes}


def compared(
    tiny: Tiny, output: Path, workers: int = 1, **changes: Any
) -> tuple[dict[str, Any], str]:
    """Run a comparison on the tiny model; return its results and what it has told."""
    told = io.StringIO()
    settings = parse_settings(content(tiny, **changes))
    console = Console(file=told, width=170)
    return compare(settings, output, Workers(workers, start=start_forked), console), told.getvalue()


def write_config(path: Path, settings: Mapping[str, Any]) -> Path:
    """Write the config of a comparison."""
    path.write_text(yaml.safe_dump(dict(settings), sort_keys=False))
    return path


def times(folder: Path) -> dict[str, int]:
    """Return when each file of a run was written."""
    files = (path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): path.stat().st_mtime_ns for path in files}
