"""Train what is not trained, compare, and write the results."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console

from lit_entrodrop.cli.messages import one_line
from lit_entrodrop.commands.compare.analysis import Trial, choose, pairs
from lit_entrodrop.commands.compare.existing_runs import (
    plain_or_first,
    read_given,
    sort_into_trials,
)
from lit_entrodrop.commands.compare.locking import lock
from lit_entrodrop.commands.compare.measures import are_tested, measure
from lit_entrodrop.commands.compare.planning import PlannedRun, plan_runs
from lit_entrodrop.commands.compare.process_pool import Workers
from lit_entrodrop.commands.compare.results import FILE_NAME, Subject, judge, to_json
from lit_entrodrop.commands.compare.settings import Settings
from lit_entrodrop.commands.compare.tables import show
from lit_entrodrop.commands.compare.training import has_test_split, test, train
from lit_entrodrop.commands.report import write_report
from lit_entrodrop.runs.writing import write_whole


def compare(settings: Settings, output: Path, workers: Workers, console: Console) -> dict[str, Any]:
    """Train what is not trained, compare, and write the results.

    Args:
        settings: what is compared.
        output: folder of all runs.
        workers: how many runs at once.
        console: where it is told.

    Returns:
        What ``comparison.json`` keeps.

    Raises:
        ValueError: if the settings are wrong, a run was changed, or a run failed.
    """
    runs = plan_runs(settings, output)
    held = lock(output / "lock")
    if held is None:
        raise ValueError(
            f"output: another comparison is at work in {output}: wait for it, or name another"
        )
    with held:
        train(runs, workers, console)
        chosen = _chosen_runs(settings, runs)
        tested = has_test_split(runs[0])
        if tested:
            test(chosen, workers, console)
        split = "test" if tested and all(are_tested(run.folder) for run in chosen) else "validation"
        notes = [*_on_split(split, tested), *_on_workers(workers)]
        trials = _trials(runs, set(map(_trial_key, chosen)) if split == "test" else set())
        subject = Subject(
            settings.title, settings.baseline, settings.contrasts, trials, split, notes
        )
        return _finish(subject, output, console)


def compare_given(
    folders: Sequence[str],
    output: Path,
    baseline: str | None,
    contrasts: Sequence[tuple[str, str]],
    console: Console,
) -> dict[str, Any]:
    """Compare runs that were made before, and write the results.

    Args:
        folders: of the runs, or ``NAME=FOLDER``.
        output: folder for the results.
        baseline: arm of reference; the one without regularizers by default.
        contrasts: further pairs of arms to compare.
        console: where it is told.

    Returns:
        What ``comparison.json`` keeps.

    Raises:
        ValueError: if the runs cannot be compared.
    """
    runs = [read_given(word) for word in folders]
    trials, split, notes = sort_into_trials(runs)
    reference = baseline or plain_or_first(trials, runs)
    names = [trial.arm for trial in trials]
    for name in [reference, *(name for pair in contrasts for name in pair)]:
        if name not in names:
            raise ValueError(f"arms: expected one of {', '.join(names)}, got {name}: name an arm")
    has_split = any(run.config["data"].get("test") for run in runs)
    subject = Subject(
        "comparison", reference, contrasts, trials, split, [*_on_split(split, has_split), *notes]
    )
    return _finish(subject, output, console)


def _finish(subject: Subject, output: Path, console: Console) -> dict[str, Any]:
    comparison = judge(subject, output)
    path = output / FILE_NAME
    write_whole(path, to_json(comparison))
    show(comparison, console)
    console.print(f"comparison: {path}", soft_wrap=True)
    console.print(_report(comparison, output), markup=False, soft_wrap=True)
    return comparison


def _report(comparison: Mapping[str, Any], output: Path) -> str:
    # One run an arm: the numbers of all seeds are in the comparison.
    shown = {
        f"{name}, seed {arm['runs'][0]['seed']}": output / arm["runs"][0]["folder"]
        for name, arm in comparison["arms"].items()
    }
    try:
        return f"report: {write_report(output, shown, comparison, str(comparison['title']))}"
    except Exception as error:  # whatever a drawing may raise: hours of training have their result
        return f"report: none could be written, {type(error).__name__}: {one_line(error)}"


def _trials(runs: Sequence[PlannedRun], tested: set[tuple[str, str]]) -> list[Trial]:
    grouped: dict[tuple[str, str], list[PlannedRun]] = {}
    for run in runs:
        grouped.setdefault(_trial_key(run), []).append(run)
    return [
        Trial(
            of_trial[0].arm,
            of_trial[0].strength,
            {
                run.seed: measure(run.folder, "test" if key in tested else "validation")
                for run in of_trial
            },
        )
        for key, of_trial in grouped.items()
    ]


def _trial_key(run: PlannedRun) -> tuple[str, str]:
    return run.arm, str(run.strength)


def _chosen_runs(settings: Settings, runs: Sequence[PlannedRun]) -> list[PlannedRun]:
    trials = _trials(runs, set())
    chosen = choose(trials)
    compared = pairs(trials, chosen, settings.baseline, settings.contrasts)
    used = {
        (trial.arm, str(trial.strength)) for pair in compared for trial in (pair.first, pair.second)
    }
    return [run for run in runs if _trial_key(run) in used]


def _on_split(split: str, has_test_split: bool) -> list[str]:
    if split == "test":
        return [
            "Losses are those of the test split; the best epoch and the strength were chosen by "
            "the validation split. Gap, clean-train loss, forgetting and memorization are what "
            "the runs have logged."
        ]
    why = (
        "The runs were not all evaluated on the test split (`lit-entrodrop test`)"
        if has_test_split
        else "There is no test split"
    )
    return [
        f"{why}: losses are those of the validation split, by which the best epoch and the "
        "strength were chosen too, so best losses are a little too low for every arm, most of all "
        "for those with more trials. Set data.test to a share, such as 0.1, for a test split."
    ]


def _on_workers(workers: Workers) -> list[str]:
    if workers.count == 1:
        return []
    return [f"Up to {workers.count} runs shared this machine, so times per step are no benchmark."]
