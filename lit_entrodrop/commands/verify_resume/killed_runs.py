"""Uninterrupted and killed runs of a config, and their comparison."""

import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import lightning as L
import yaml

from lit_entrodrop.cli.fit_config import resolved_config
from lit_entrodrop.commands.verify_resume.differences import Comparison, without_root
from lit_entrodrop.commands.verify_resume.short_run import KillSchedule, short_config
from lit_entrodrop.runs.checkpoints.reading import read_all, read_checkpoint
from lit_entrodrop.runs.layout import CHECKPOINTS
from lit_entrodrop.runs.metrics_file import FILE_NAME as METRICS
from lit_entrodrop.runs.metrics_file import read_metrics

LAST = Path(CHECKPOINTS, "last.ckpt")
LOG_LINES = 30  # printed if a run fails

Program = Callable[[Sequence[str], Path], int]


class Kill(L.Callback):
    """Callback that kills the process group (all ranks) once an optimizer step is logged."""

    def __init__(self, step: int) -> None:
        self.step = step

    def on_train_batch_start(self, trainer: L.Trainer, *_: Any) -> None:
        """Kill the process group, from the rank that logs."""
        if trainer.is_global_zero and trainer.global_step >= self.step:
            os.killpg(os.getpgrp(), signal.SIGKILL)


def run_program(arguments: Sequence[str], log: Path) -> int:
    """Run a command of the program in its own process group, with its output in a log file.

    Returns:
        Exit status; negative if a signal ended the process.
    """
    with log.open("w") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "lit_entrodrop", *arguments],
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        return process.wait()
    finally:
        # Other ranks may outlive the first one.
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def verify_resume(
    arguments: Sequence[str], schedule: KillSchedule, program: Program = run_program
) -> Comparison:
    """Train a config without and with interruptions, and compare.

    Args:
        arguments: Arguments of `fit`.
        schedule: Steps of the run, and those after which it is killed.
        program: Function that runs a command of the program in its own process group.

    Raises:
        ValueError: If a run fails; the end of its output is printed to stderr.
    """
    config = short_config(resolved_config(arguments), schedule)
    with tempfile.TemporaryDirectory(prefix="lit-entrodrop-verify-resume-") as temporary:
        # Checkpoints store paths without links.
        folder = Path(temporary).resolve()
        (folder / "config.yaml").write_text(yaml.safe_dump(config))
        print(f"{schedule.steps} steps in epochs of {schedule.per_epoch}, in {folder}")
        whole, resumed = folder / "uninterrupted", folder / "resumed"
        fit = partial(_fit, folder / "config.yaml", program)
        fit("1/4 uninterrupted", whole)
        if (steps := read_metrics(whole).index[-1]) != schedule.steps:
            raise ValueError(
                f"data: expected two epochs of {schedule.per_epoch} steps, got {steps} steps in "
                "total: provide more text, or lower data.batch_size or "
                "trainer.accumulate_grad_batches"
            )
        fit("2/4 from the start", resumed, kill=schedule.kills[0])
        fit("3/4 resumed", resumed, kill=schedule.kills[1])
        fit("4/4 resumed", resumed)
        comparison = Comparison()
        comparison.compare_metrics(read_metrics(whole), read_metrics(resumed), METRICS)
        last, other = (without_root(read_all(run / LAST), str(run)) for run in (whole, resumed))
        comparison.compare(last, other, LAST.name)
        return comparison


def _fit(config: Path, program: Program, title: str, folder: Path, kill: int | None = None) -> None:
    """Start or resume the run in a folder, until its end or until a kill after a step."""
    arguments = ["fit", "--config", str(config), "--trainer.default_root_dir", str(folder)]
    if folder.exists():
        last = read_checkpoint(folder / LAST)
        title += f" from step {last['global_step']} of epoch {last['epoch'] + 1}"
        arguments += ["--ckpt_path", "last"]
    if kill:
        title += f", killed after step {kill}"
        class_path = f"{Kill.__module__}.{Kill.__qualname__}"
        arguments += [f"--trainer.callbacks+={class_path}", f"--trainer.callbacks.step={kill}"]
    print(f"{title} … ", end="", flush=True)
    start, log = time.monotonic(), config.with_name("log.txt")
    status = program(arguments, log)
    print(f"{time.monotonic() - start:.1f} s", flush=True)
    if not _ended_as_planned(status, kill, folder):
        lines = log.read_text(errors="replace").splitlines()
        print(*lines[-LOG_LINES:], sep="\n", file=sys.stderr, flush=True)
        aim = f"save step {kill - 1} and be killed after step {kill}" if kill else "succeed"
        raise ValueError(
            f"verify-resume: {title}: expected `fit` to {aim}, but it ended with status "
            f"{status}: see its output above"
        )


def _ended_as_planned(status: int, kill: int | None, folder: Path) -> bool:
    if kill is None:
        return status == 0
    # Without the checkpoint, the run would start from scratch, and equality would prove nothing.
    return (
        status == -signal.SIGKILL
        and (folder / LAST).exists()
        and read_checkpoint(folder / LAST)["global_step"] == kill - 1
    )
