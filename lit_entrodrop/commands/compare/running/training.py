"""Training and test evaluation of the runs that are not finished."""

from collections.abc import Iterable, Sequence
from functools import partial
from pathlib import Path

from rich.console import Console

from lit_entrodrop.commands.compare.measuring.measures import checkpoint_steps
from lit_entrodrop.commands.compare.planning.arm_checks import check_arms
from lit_entrodrop.commands.compare.planning.planned_run import PlannedRun
from lit_entrodrop.commands.compare.running.process_pool import Task, Workers, last_lines, run_tasks
from lit_entrodrop.commands.compare.running.progress_reporter import ProgressReporter
from lit_entrodrop.commands.compare.running.run_progress import read_progress
from lit_entrodrop.commands.compare.running.run_state import (
    claim,
    config_file,
    read_state,
    state_path,
    write_state,
)
from lit_entrodrop.runs.evaluations import evaluation_path
from lit_entrodrop.training.callbacks.nan_guard import ADVICE


def train(
    runs: Sequence[PlannedRun],
    workers: Workers,
    console: Console,
    before: int = 0,
    total: int | None = None,
) -> None:
    """Train all runs that are not finished; resume those that were interrupted.

    Args:
        runs: Runs to train.
        workers: Number of runs at a time, and their devices.
        console: Where progress is printed.
        before: Number of runs of the comparison in earlier stages, for the progress.
        total: Number of runs in all stages, for the progress. Default: all are in this stage.

    Raises:
        ValueError: If the folder of a run contains another one, or a run failed.
    """
    unfinished = [run for run in runs if not is_finished(run)]
    if len(unfinished) < len(runs):
        console.print(f"{len(runs) - len(unfinished)} of {len(runs)} runs are finished already.")
    check_arms(unfinished)
    tasks = [fit_task(run) for run in unfinished]
    done = before + len(runs) - len(tasks)
    _run_all(tasks, "runs trained", done, total or len(runs), workers, console)


def test(runs: Iterable[PlannedRun], workers: Workers, console: Console) -> None:
    """Evaluate the best and the last checkpoint of runs on the test split, unless done before.

    Raises:
        ValueError: If an evaluation failed.
    """
    tasks = [
        _test(run, name)
        for run in runs
        for name, step in _distinct(checkpoint_steps(run.folder)).items()
        if not evaluation_path(run.folder, step, "test").exists()
    ]
    _run_all(tasks, "checkpoints evaluated on the test split", 0, len(tasks), workers, console)


def is_finished(run: PlannedRun) -> bool:
    """Return whether the training of a run has ended."""
    state = read_state(run)
    return state is not None and state.is_finished


def has_diverged(log: Path) -> bool:
    """Return whether a run has ended because of NaN or infinite losses or weights, by its log."""
    return log.exists() and ADVICE in last_lines(log)


def fit_task(run: PlannedRun) -> Task:
    """Return the task that trains a run, or resumes it."""
    return Task(
        run.title,
        _command("fit", run, "last"),
        state_path(run, "fit.log"),
        state_path(run, "lock"),
        on_start=partial(claim, run),
        on_success=partial(write_state, run, is_finished=True),
        progress=partial(read_progress, run.folder),
    )


def _test(run: PlannedRun, checkpoint: str) -> Task:
    # Averaged weights compete for the best results only.
    weights = "raw" if checkpoint == "last" else "best"
    return Task(
        f"{run.title}, {checkpoint} checkpoint",
        [*_command("test", run, checkpoint), "--weights", weights],
        state_path(run, f"test-{checkpoint}.log"),
        state_path(run, "lock"),
        on_start=partial(claim, run),
    )


def _command(name: str, run: PlannedRun, checkpoint: str) -> list[str]:
    # The folder of the comparison may have been moved since the config was written.
    folder = ["--trainer.default_root_dir", str(run.folder)]
    config = ["--config", str(config_file(run)), *folder, "--ckpt_path", checkpoint]
    return [name, *config, "--trainer.enable_progress_bar", "false"]


def _distinct(steps: dict[str, int]) -> dict[str, int]:
    return {name: step for name, step in steps.items() if name == "best" or step != steps["best"]}


def _run_all(
    tasks: Sequence[Task], what: str, done: int, total: int, workers: Workers, console: Console
) -> None:
    if not tasks:
        return
    with ProgressReporter(console, what, done, total, workers.count) as reporter:
        failed = run_tasks(tasks, workers, reporter)
    if not failed:
        return
    for task in failed:
        console.print(f"{task.title}, end of {task.log}:", style="red", markup=False)
        console.print(last_lines(task.log), markup=False, highlight=False)
    raise ValueError(
        f"compare: {len(failed)} of {len(tasks)} runs failed, the first {failed[0].title}: see "
        "their output above; correct the cause and start the same command again, which trains "
        "only what is missing"
    )
