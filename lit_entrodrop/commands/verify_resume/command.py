"""Prove, for a user's own config, that a killed and resumed run ends as an uninterrupted one."""

import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import lightning as L
import yaml

from lit_entrodrop.cli.lit_cli import resolved_config
from lit_entrodrop.cli.terminal import command_parser, refuse_ranks
from lit_entrodrop.commands.verify_resume.differences import Comparison, without_root
from lit_entrodrop.runs.checkpoints.reading import read_all, read_checkpoint
from lit_entrodrop.runs.layout import CHECKPOINTS
from lit_entrodrop.runs.metrics_file import FILE_NAME as METRICS
from lit_entrodrop.runs.metrics_file import read_metrics

LAST = Path(CHECKPOINTS, "last.ckpt")
SAVE_EVERY = 2  # steps
SHORT_VALIDATION = 2  # batches
TOLD_LINES = 30
DESCRIPTION = """Prove that your run can be killed and resumed.

Trains your config for a few steps across the border of an epoch, once without interruption, and
once killed (SIGKILL, all ranks) amid the first epoch, resumed, killed in the second epoch and
resumed again. Then compares, bit by bit, all that the two last checkpoints hold (weights,
optimizer, learning rate, entropies, positions of loops and data) and every row of metrics.csv.
Exits with 0 if all is equal; else with 1, naming the first difference.

Takes all arguments of `fit`. What it writes goes into a temporary folder ($TMPDIR), never into
that of your run, and is removed in the end. Keep --steps small: the 8 of the default, of which half
are an epoch, show as much as many. The text must be enough for one such epoch: data.batch_size x
accumulate_grad_batches x devices blocks for each step."""
EPILOG = "example: lit-entrodrop verify-resume --config configs/base.yaml --config mine.yaml"

Run = Callable[[Sequence[str], Path], int]


@dataclass(frozen=True)
class Plan:
    """Two short epochs, and where to interrupt them.

    Args:
        steps: optimizer steps of the whole run.

    Raises:
        ValueError: if they do not make two epochs that end with a checkpoint.

    >>> plan = Plan(8)
    >>> plan.per_epoch, plan.kills
    (4, (3, 5))
    """

    steps: int = 8

    def __post_init__(self) -> None:
        if self.steps < 8 or self.steps % 4:
            raise ValueError(
                f"steps: expected 8, 12, 16 or so, which make two epochs, got {self.steps}"
            )

    @property
    def per_epoch(self) -> int:
        """Steps of an epoch."""
        return self.steps // 2

    @property
    def kills(self) -> tuple[int, int]:
        """The steps after which the run is killed: amid the first epoch, and in the second.

        Each follows a checkpoint by one step, which is lost and done again.
        """
        return self.per_epoch - 1, self.per_epoch + 1


class Kill(L.Callback):
    """End all ranks as `kill -9` does, once a step is done and logged.

    For runs that lead a process group of their own.

    Args:
        step: the number of optimizer steps.
    """

    def __init__(self, step: int) -> None:
        self.step = step

    def on_train_batch_start(self, trainer: L.Trainer, *_: Any) -> None:
        """Kill, from the rank that logs."""
        if trainer.is_global_zero and trainer.global_step >= self.step:
            os.killpg(os.getpgrp(), signal.SIGKILL)


def run_program(arguments: Sequence[str], log: Path) -> int:
    """Run a command of the program in a process group of its own.

    Args:
        arguments: of the program.
        log: where what it says is kept.

    Returns:
        The exit status, negative if a signal ended it.
    """
    with log.open("w") as said:
        process = subprocess.Popen(
            [sys.executable, "-m", "lit_entrodrop", *arguments],
            stdout=said,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        return process.wait()
    finally:
        # Ranks that outlive the first one.
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def command(words: Sequence[str], run: Run = run_program) -> None:
    """Run the command; exit with 1 if the runs differ.

    Args:
        words: its own options and those of `fit`.
        run: runs the program in a process group of its own.
    """
    parser = command_parser(
        "verify-resume",
        DESCRIPTION,
        EPILOG,
        usage="%(prog)s [--steps STEPS] [any argument of fit ...]",
    )
    parser.add_argument(
        "--steps", type=int, default=Plan.steps, help="optimizer steps (default: %(default)s)"
    )
    known, arguments = parser.parse_known_args(words)
    refuse_ranks("verify-resume", "ranks")
    compared = verify_resume(arguments, Plan(known.steps), run)
    extent = (
        f"{compared.tensors} tensors and {compared.values} values of the last checkpoint, "
        f"{compared.rows} rows of {METRICS}"
    )
    if not compared.differences:
        print(f"equal: {extent}")
        return
    print(f"different: {compared.differences[0]}")
    print(f"the first of {len(compared.differences)} differences among {extent}")
    sys.exit(1)


def verify_resume(arguments: Sequence[str], plan: Plan, run: Run = run_program) -> Comparison:
    """Train a config without and with interruptions, and compare.

    Args:
        arguments: of `fit`.
        plan: how long, and where to interrupt.
        run: runs the program in a process group of its own.

    Returns:
        What was compared and what differs, the earliest metrics first.

    Raises:
        ValueError: if a run fails; what it has said is told on stderr.
    """
    config = short_config(resolved_config(arguments), plan)
    with tempfile.TemporaryDirectory(prefix="lit-entrodrop-verify-resume-") as temporary:
        # Checkpoints hold paths without links.
        folder = Path(temporary).resolve()
        (folder / "config.yaml").write_text(yaml.safe_dump(config))
        print(f"{plan.steps} steps in epochs of {plan.per_epoch}, in {folder}")
        whole, resumed = folder / "uninterrupted", folder / "resumed"
        phases = _Phases(folder / "config.yaml", run)
        phases.fit("1/4 uninterrupted", whole)
        _require_steps(whole, plan)
        phases.fit("2/4 from the start", resumed, kill=plan.kills[0])
        phases.fit("3/4 resumed", resumed, kill=plan.kills[1])
        phases.fit("4/4 resumed", resumed)
        return compare_runs(whole, resumed)


def compare_runs(whole: Path, resumed: Path) -> Comparison:
    """Compare the metrics and the last checkpoints of two runs.

    Args:
        whole: folder of the uninterrupted run.
        resumed: folder of the other.
    """
    comparison = Comparison()
    comparison.compare_metrics(read_metrics(whole), read_metrics(resumed), METRICS)
    last, other = (without_root(read_all(run / LAST), str(run)) for run in (whole, resumed))
    comparison.compare(last, other, LAST.name)
    return comparison


def short_config(config: dict[str, Any], plan: Plan) -> dict[str, Any]:
    """Return the config of a short run that crosses the border of an epoch.

    Args:
        config: of `fit`.
        plan: how long.
    """
    trainer = config["trainer"]
    callbacks = trainer["callbacks"] or []
    callbacks = callbacks if isinstance(callbacks, list) else [callbacks]
    own = {
        "max_epochs": 2,
        # Lightning resumes otherwise if it is set, so it is where the user sets it.
        "max_steps": -1 if trainer["max_steps"] == -1 else plan.steps,
        "min_steps": None,
        "min_epochs": None,
        "max_time": None,
        "fast_dev_run": False,
        "limit_train_batches": plan.per_epoch * trainer["accumulate_grad_batches"],
        "limit_val_batches": 0 if trainer["limit_val_batches"] == 0 else SHORT_VALIDATION,
        "val_check_interval": 1.0,
        "check_val_every_n_epoch": 1,
        "log_every_n_steps": 1,
        "logger": True,
        "profiler": None,
        "enable_checkpointing": True,
        "enable_progress_bar": False,
        "callbacks": [*map(_in_the_run_folder, callbacks)],
    }
    checkpoints = {**config["checkpoints"], "every_n_train_steps": SAVE_EVERY}
    return {
        **config,
        "trainer": {**trainer, **own},
        "checkpoints": checkpoints,
        "ckpt_path": None,
    }


def _require_steps(run: Path, plan: Plan) -> None:
    if (steps := read_metrics(run).index[-1]) != plan.steps:
        raise ValueError(
            f"data: expected two epochs of {plan.per_epoch} steps, got {steps} steps in all: give "
            "more text, or lower data.batch_size or trainer.accumulate_grad_batches"
        )


def _in_the_run_folder(callback: dict[str, Any]) -> dict[str, Any]:
    settings = callback.get("init_args") or {}
    if not settings.get("dirpath"):
        return callback
    return {**callback, "init_args": {**settings, "dirpath": None}}


@dataclass(frozen=True)
class _Phases:
    """Start the same config again and again."""

    config: Path
    run: Run

    def fit(self, title: str, folder: Path, kill: int | None = None) -> None:
        """Start or resume the run in a folder, until the end or until it is killed after a step."""
        arguments = ["fit", "--config", str(self.config), "--trainer.default_root_dir", str(folder)]
        if folder.exists():
            last = _last(folder)
            title += f" from step {last['global_step']} of epoch {last['epoch'] + 1}"
            arguments += ["--ckpt_path", "last"]
        if kill:
            title += f", killed after step {kill}"
            plug_in = f"{Kill.__module__}.{Kill.__qualname__}"
            arguments += [f"--trainer.callbacks+={plug_in}", f"--trainer.callbacks.step={kill}"]
        print(f"{title} … ", end="", flush=True)
        start, log = time.monotonic(), self.config.with_name("log.txt")
        status = self.run(arguments, log)
        print(f"{time.monotonic() - start:.1f} s", flush=True)
        if not _ended_as_planned(status, kill, folder):
            _tell(log)
            aim = f"save step {kill - 1} and be killed after {kill}" if kill else "succeed"
            raise ValueError(
                f"verify-resume: {title}: expected `fit` to {aim}, but it ended with status "
                f"{status}: see what it said above"
            )


def _ended_as_planned(status: int, kill: int | None, folder: Path) -> bool:
    if kill is None:
        return status == 0
    # Without the checkpoint the run would start anew, and be equal for the wrong reason.
    return (
        status == -signal.SIGKILL
        and (folder / LAST).exists()
        and _last(folder)["global_step"] == kill - 1
    )


def _last(folder: Path) -> dict[str, Any]:
    return read_checkpoint(folder / LAST)


def _tell(log: Path) -> None:
    lines = log.read_text(errors="replace").splitlines()
    print(*lines[-TOLD_LINES:], sep="\n", file=sys.stderr, flush=True)
