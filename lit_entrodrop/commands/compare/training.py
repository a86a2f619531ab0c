"""Train and test the runs of a comparison, but for those that are finished."""

from collections.abc import Iterable, Sequence
from functools import partial
from typing import IO

from rich.console import Console

from lit_entrodrop.commands.compare.measures import checkpoint_steps, progress
from lit_entrodrop.commands.compare.planning import Run
from lit_entrodrop.commands.compare.processes import Job, Workers, run_jobs, told
from lit_entrodrop.commands.compare.progress import Told
from lit_entrodrop.commands.compare.run_state import (
    check_claim,
    claim,
    config_file,
    lock_run,
    log_file,
    read_mark,
    write_mark,
)
from lit_entrodrop.runs.evaluations import evaluation_path


def train(runs: Sequence[Run], workers: Workers, console: Console) -> None:
    """Train all runs that are not finished; those that were killed go on.

    Args:
        runs: of the comparison.
        workers: how many at once.
        console: where it is told.

    Raises:
        ValueError: if the folder of a run holds another one, or a run failed.
    """
    for run in runs:
        check_claim(run)
    open_runs = [run for run in runs if not is_finished(run)]
    if len(open_runs) < len(runs):
        console.print(f"{len(runs) - len(open_runs)} of {len(runs)} runs are finished already.")
    jobs = [_fit(run) for run in open_runs]
    _run_all(jobs, "trained", len(runs), workers, console)


def test(runs: Iterable[Run], workers: Workers, console: Console) -> None:
    """Evaluate the best and the last checkpoint of runs on the test split, unless they were.

    Args:
        runs: finished ones.
        workers: how many at once.
        console: where it is told.

    Raises:
        ValueError: if an evaluation failed.
    """
    jobs = [
        _test(run, name)
        for run in runs
        for name, step in _distinct(checkpoint_steps(run.folder)).items()
        if not evaluation_path(run.folder, step, "test").exists()
    ]
    _run_all(jobs, "tested", len(jobs), workers, console)


def has_test_split(run: Run) -> bool:
    """Tell whether the data of a run has a test split."""
    return bool(run.config["data"].get("test"))


def is_finished(run: Run) -> bool:
    """Tell whether a run has ended by itself."""
    mark = read_mark(run)
    return mark is not None and mark.is_finished


def _fit(run: Run) -> Job:
    arguments = ["fit", "--config", str(config_file(run)), *_place(run), "--ckpt_path", "last"]
    return Job(
        run.title,
        [*arguments, "--trainer.enable_progress_bar", "false"],
        log_file(run, "fit"),
        run.folder,
        acquire=partial(_lock_and_claim, run),
        on_success=partial(write_mark, run, is_finished=True),
        progress=partial(progress, run.folder),
    )


def _test(run: Run, checkpoint: str) -> Job:
    arguments = ["test", "--config", str(config_file(run)), *_place(run), "--ckpt_path", checkpoint]
    return Job(
        f"{run.title}, {checkpoint}",
        [*arguments, "--trainer.enable_progress_bar", "false"],
        log_file(run, f"test-{checkpoint}"),
        run.folder,
        acquire=partial(_lock_and_claim, run),
        progress=lambda: "tested",
    )


def _place(run: Run) -> list[str]:
    # The folder of the comparison may have been moved since the config was written.
    return ["--trainer.default_root_dir", str(run.folder)]


def _lock_and_claim(run: Run) -> IO[str] | None:
    held = lock_run(run)
    if held is not None:
        claim(run)
    return held


def _distinct(steps: dict[str, int]) -> dict[str, int]:
    return {name: step for name, step in steps.items() if name == "best" or step != steps["best"]}


def _run_all(
    jobs: Sequence[Job], what: str, total: int, workers: Workers, console: Console
) -> None:
    if not jobs:
        return
    with Told(console, what, total - len(jobs), total) as watcher:
        failed = run_jobs(jobs, workers, watcher)
    if not failed:
        return
    for job in failed:
        console.print(f"{job.title}, the end of {job.log}:", style="red", markup=False)
        console.print(told(job.log), markup=False, highlight=False)
    raise ValueError(
        f"compare: {len(failed)} of {len(jobs)} runs failed, the first {failed[0].title}: see what "
        "they said above; once the cause is mended, the same command goes on with what is left"
    )
