"""Final runs: plain fine-tuning and the best methods of a search, trained with new seeds."""

from collections.abc import Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

from rich.console import Console

from lit_entrodrop.commands.compare.judging.analysis import ArmTrial, Finding
from lit_entrodrop.commands.compare.measuring.measures import SCORE, measure
from lit_entrodrop.commands.compare.planning.planned_run import PlannedRun
from lit_entrodrop.commands.compare.running.process_pool import Workers
from lit_entrodrop.commands.compare.running.training import (
    fit_task,
    has_diverged,
    is_finished,
    test,
    train,
)
from lit_entrodrop.commands.tune.result.decision import decide, select_winner, use_winner
from lit_entrodrop.commands.tune.search.outcome import TrialOutcome, best_plain, finalists
from lit_entrodrop.commands.tune.space.sample import PLAIN
from lit_entrodrop.commands.tune.space.sampled_config import sampled_config
from lit_entrodrop.commands.tune.space.space import Space

FOLDER = "final"


@dataclass(frozen=True)
class Finalist:
    """A trial of the search that is trained again.

    Args:
        name: Name of the arm.
        trial: Trial of the search.
        runs: One run for each seed.
    """

    name: str
    trial: TrialOutcome
    runs: list[PlannedRun]

    def measured(self, split: str) -> ArmTrial:
        """Return the results on a split, for each seed."""
        return ArmTrial(self.name, {}, {run.seed: measure(run.folder, split) for run in self.runs})


@dataclass(frozen=True)
class Finals:
    """Results of the final runs.

    Args:
        plain: Plain fine-tuning.
        others: The best methods of the search, the best first.
        validated: Results of all of them on the validation split, by name.
        tested: Results of the winner and of plain on the test split.
        finding: Difference of the winner from plain on the test split.
        diverged: Names of methods that were left out, as a run with a new seed diverged.
    """

    plain: Finalist
    others: list[Finalist]
    validated: Mapping[str, ArmTrial]
    tested: tuple[ArmTrial, ArmTrial]
    finding: Finding
    diverged: Sequence[str] = ()

    @property
    def winner(self) -> Finalist:
        """The method with the lowest validation loss."""
        return next(each for each in self.others if each.name == self.tested[0].arm)

    @property
    def chosen(self) -> Finalist:
        """The winner if it is better than plain, else plain."""
        return self.winner if use_winner(self.finding) else self.plain

    @property
    def best_run(self) -> PlannedRun:
        """Run of the chosen recipe with the best validation loss."""
        results = self.validated[self.chosen.name].results
        return min(self.chosen.runs, key=lambda run: results[run.seed].values[SCORE])


def final_runs(
    config: Mapping[str, Any],
    space: Space,
    trials: Sequence[TrialOutcome],
    seeds: int,
    folder: Path,
) -> list[Finalist]:
    """Plan the final runs: plain first, then the methods.

    The seeds follow that of the search, so that no run profits from its selection.

    Raises:
        ValueError: If no trial of plain, or of a method, has finished.
    """
    plain, best = best_plain(trials), finalists(trials)
    if plain is None or not best:
        raise ValueError(
            "tune: expected a finished trial of plain fine-tuning and one with a method, got "
            f"{len(trials)} trials without: raise the budget and start the same command again"
        )
    first = int(config["seed_everything"]) + 1
    found: list[Finalist] = []
    for trial in (plain, *best):
        label = trial.sample.label
        taken = [each.name for each in found]
        name = label if label not in taken else f"{label} ({trial.name})"
        own = sampled_config(config, space, trial.sample)
        runs = [
            _run(own, name, seed, folder / FOLDER / trial.name)
            for seed in range(first, first + seeds)
        ]
        found.append(Finalist(name if trial is not plain else PLAIN, trial, runs))
    return found


def run_finals(finalists: Sequence[Finalist], workers: Workers, console: Console) -> Finals:
    """Train the final runs, select the winner on the validation split, and test it.

    A method that diverges with a new seed is left out.

    Raises:
        ValueError: If another run failed, or all methods diverged.
    """
    plain, *others = finalists
    console.print(
        f"Training {', '.join(each.name for each in finalists)} with {len(plain.runs)} new seeds.",
        markup=False,
    )
    diverged = _train(finalists, workers, console)
    others = [each for each in others if each not in diverged]
    validated = {each.name: each.measured("validation") for each in (plain, *others)}
    selected = select_winner([validated[each.name] for each in others])
    winner = next(each for each in others if each.name == selected.arm)
    test([*winner.runs, *plain.runs], workers, console)
    tested = winner.measured("test"), plain.measured("test")
    left_out = [each.name for each in diverged]
    return Finals(plain, others, validated, tested, decide(*tested), left_out)


def _train(finalists: Sequence[Finalist], workers: Workers, console: Console) -> list[Finalist]:
    """Train all final runs; return the methods with a run that diverged."""
    by_seed = zip(*(each.runs for each in finalists), strict=True)
    try:
        train(list(chain.from_iterable(by_seed)), workers, console)
    except ValueError:
        failed = [each for each in finalists if not all(map(is_finished, each.runs))]
        plain, *methods = finalists
        if plain in failed or failed == methods or not all(map(_has_diverged, failed)):
            raise
        names = ", ".join(each.name for each in failed)
        console.print(f"Left out, as a run with a new seed diverged: {names}.", markup=False)
        return failed
    return []


def _has_diverged(finalist: Finalist) -> bool:
    unfinished = [run for run in finalist.runs if not is_finished(run)]
    return all(has_diverged(fit_task(run).log) for run in unfinished)


def _run(config: Mapping[str, Any], name: str, seed: int, folder: Path) -> PlannedRun:
    own: dict[str, Any] = deepcopy(dict(config)) | {"seed_everything": seed}
    place = folder / f"seed={seed}"
    own["trainer"]["default_root_dir"] = str(place)
    return PlannedRun(name, {}, seed, place, own)
