"""Comparison of planned or existing runs, up to the written results."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console

from lit_entrodrop.commands.compare.existing_runs import (
    group_into_trials,
    plain_or_first,
    read_existing_run,
)
from lit_entrodrop.commands.compare.finished_runs import FinishedRuns
from lit_entrodrop.commands.compare.judging.notes import split_notes
from lit_entrodrop.commands.compare.judging.results import FILE_NAME, ComparisonInputs, judge
from lit_entrodrop.commands.compare.judging.tables import show
from lit_entrodrop.commands.compare.measuring.imported_runs import read_imported
from lit_entrodrop.commands.compare.planning.planned_run import plan_runs
from lit_entrodrop.commands.compare.planning.settings import ComparisonSettings
from lit_entrodrop.commands.compare.running.process_pool import Workers
from lit_entrodrop.commands.compare.running.training import test
from lit_entrodrop.commands.compare.stages import train_in_stages
from lit_entrodrop.commands.report import write_report
from lit_entrodrop.runs.layout import lock_output
from lit_entrodrop.runs.writing import write_json
from lit_entrodrop.runtime.shown_text import one_line


def compare(
    settings: ComparisonSettings,
    output: Path,
    workers: Workers,
    console: Console,
    imported: Sequence[Path] = (),
) -> dict[str, Any]:
    """Train the missing runs, compare all of them, write the results and return their content.

    Args:
        settings: Arms, seeds and pairs to compare.
        output: Folder of the runs and the results.
        workers: Number of runs at a time, and their devices.
        console: Where progress and results are printed.
        imported: Files ``comparison.json`` whose runs are not trained again.

    Raises:
        ValueError: If the settings are wrong or differ from those of an existing run, a file to
            import is wrong, or a run failed.
    """
    finished = FinishedRuns(read_imported(imported))
    runs = plan_runs(settings, output)
    with lock_output(output, "compare"):
        console.print(
            f"Comparing {len(settings.arms)} arms in {settings.run_count} runs, "
            f"{workers.count} at a time, in {output}.",
            soft_wrap=True,
        )
        trained = train_in_stages(settings, runs, finished, workers, console)
        compared = trained.to_compare
        reported = [*compared, *trained.rungs]
        has_test = bool(runs[0].config["data"].get("test"))
        if has_test:
            test(finished.local(reported), workers, console)
        all_tested = has_test and all(map(finished.is_tested, reported))
        split = "test" if all_tested else "validation"
        trials = trained.trials(compared if all_tested else ())
        notes = [*split_notes(split, has_test, trials), *finished.notes(trained.all)]
        if workers.count > 1:
            shared = f"Up to {workers.count} runs shared this machine"
            notes.append(f"{shared}, so times per step are not a benchmark.")
        inputs = ComparisonInputs(
            settings.title,
            settings.baseline,
            settings.contrasts,
            trials,
            split,
            notes,
            [finished.entry(run) for run in trained.all],
            trained.ladder(split),
        )
        return _finish(inputs, output, console)


def compare_existing(
    folders: Sequence[str],
    output: Path,
    baseline: str | None,
    contrasts: Sequence[tuple[str, str]],
    console: Console,
) -> dict[str, Any]:
    """Compare existing runs, write the results and return their content.

    The baseline is, by default, the arm without regularizers.

    Raises:
        ValueError: If the runs cannot be compared.
    """
    runs = [read_existing_run(argument) for argument in folders]
    trials, split, notes = group_into_trials(runs)
    reference = baseline or plain_or_first(trials, runs)
    names = [trial.arm for trial in trials]
    for name in [reference, *(name for pair in contrasts for name in pair)]:
        if name not in names:
            raise ValueError(f"arms: expected one of {', '.join(names)}, got {name}: name an arm")
    has_test = any(run.config["data"].get("test") for run in runs)
    notes = [*split_notes(split, has_test, trials), *notes]
    inputs = ComparisonInputs("comparison", reference, contrasts, trials, split, notes)
    return _finish(inputs, output, console)


def _finish(inputs: ComparisonInputs, output: Path, console: Console) -> dict[str, Any]:
    comparison = judge(inputs, output)
    write_json(output / FILE_NAME, comparison)
    show(comparison, console)
    console.print(f"comparison: {output / FILE_NAME}", soft_wrap=True)
    console.print("Writing the report.")
    console.print(_report(comparison, output), markup=False, soft_wrap=True)
    return comparison


def _report(comparison: Mapping[str, Any], output: Path) -> str:
    # One run of each arm: the comparison has the numbers of all seeds.
    here = {
        name: [run for run in arm["runs"] if run["folder"] is not None]
        for name, arm in comparison["arms"].items()
    }
    shown = {
        f"{name}, seed {runs[0]['seed']}": output / runs[0]["folder"]
        for name, runs in here.items()
        if runs
    }
    try:
        return f"report: {write_report(output, shown, comparison, str(comparison['title']))}"
    except Exception as error:  # the results of hours of training are already written
        return f"report: none could be written, {type(error).__name__}: {one_line(error)}"
