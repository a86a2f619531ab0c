"""Training of a comparison in stages, as later runs depend on the strengths that are selected."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass

from rich.console import Console

from lit_entrodrop.commands.compare.finished_runs import FinishedRuns
from lit_entrodrop.commands.compare.judging.analysis import ArmTrial, pair_trials, select_trials
from lit_entrodrop.commands.compare.judging.ladder import LadderResults
from lit_entrodrop.commands.compare.planning.ladder import Ladder
from lit_entrodrop.commands.compare.planning.planned_run import PlannedRun
from lit_entrodrop.commands.compare.planning.rungs import check_epochs, check_sizes, plan_rungs
from lit_entrodrop.commands.compare.planning.settings import ComparisonSettings
from lit_entrodrop.commands.compare.running.process_pool import Workers
from lit_entrodrop.commands.compare.running.run_state import check_claim
from lit_entrodrop.commands.compare.running.training import train

TrialKey = tuple[str, str]


@dataclass(frozen=True)
class TrainedRuns:
    """Runs of a comparison that have ended.

    Args:
        settings: Settings of the comparison.
        finished: Their results.
        runs: Runs on the whole text, of all trials.
        rungs: Runs on parts of the text.
    """

    settings: ComparisonSettings
    finished: FinishedRuns
    runs: Sequence[PlannedRun]
    rungs: Sequence[PlannedRun] = ()

    @property
    def all(self) -> list[PlannedRun]:
        """Runs on the whole text and on parts of it."""
        return [*self.runs, *self.rungs]

    @property
    def to_compare(self) -> list[PlannedRun]:
        """Runs of the trials that are selected or compared with selected ones."""
        trials, settings = self.trials(), self.settings
        selected = select_trials(trials)
        pairs = pair_trials(trials, selected, settings.baseline, settings.contrasts)
        return self._of([trial for pair in pairs for trial in (pair.first, pair.second)])

    @property
    def selected(self) -> list[PlannedRun]:
        """Runs of the selected trial of each arm."""
        return self._of(select_trials(self.trials()).values())

    def trials(self, tested: Collection[PlannedRun] = ()) -> list[ArmTrial]:
        """Return the results of all trials, those of ``tested`` runs on the test split."""
        trials: dict[TrialKey, ArmTrial] = {}
        folders = {run.folder for run in tested}
        for run in self.runs:
            new = ArmTrial(run.arm, run.strength, {}, self.settings.strength_seeds)
            split = "test" if run.folder in folders else "validation"
            results = trials.setdefault(_key(run), new).results
            results[run.seed] = self.finished.measure(run, split)
        return list(trials.values())

    def ladder(self, split: str) -> LadderResults | None:
        """Return the results of the ladder on a split, None if there is no ladder."""
        ladder, baseline = self.settings.ladder, self.settings.baseline
        if ladder is None:
            return None
        found: dict[tuple[str, float], dict[int, PlannedRun]] = {}
        for run in (*self.selected, *self.rungs):
            found.setdefault((run.arm, run.share), {})[run.seed] = run
        results = {
            key: {seed: self.finished.measure(run, split) for seed, run in runs.items()}
            for key, runs in found.items()
        }
        firsts = {share: next(iter(found[baseline, share].values())) for share in ladder.shares}
        return LadderResults(
            ladder,
            baseline,
            {share: self.finished.train_tokens(run) for share, run in firsts.items()},
            {share: results[baseline, share] for share in ladder.shares},
            {a.name: results[a.name, ladder.at] for a in self.settings.arms if a.name != baseline},
        )

    def _of(self, trials: Collection[ArmTrial]) -> list[PlannedRun]:
        keys = set(map(_key, trials))
        return [run for run in self.runs if _key(run) in keys]


def train_in_stages(
    settings: ComparisonSettings,
    runs: Sequence[PlannedRun],
    finished: FinishedRuns,
    workers: Workers,
    console: Console,
) -> TrainedRuns:
    """Train all strengths on the seeds that select, then the selected ones on the other seeds.

    The runs on parts of the text follow with the latter. Runs that can be imported are not trained,
    unless their comparison needs more than is imported.

    Raises:
        ValueError: If the folder of a run contains another one, or a run failed.
    """
    for run in runs:
        check_claim(run)
    if settings.ladder is not None:
        _check_ladder(settings.ladder, runs, finished, settings.baseline)
    selecting = [run for run in runs if run.seed in settings.selection_seeds]
    own = finished.local(selecting)
    imported = len(selecting) - len(own)
    if finished.known:
        console.print(f"{imported} of {len(selecting)} runs are imported.")
        if not imported:
            console.print(
                f"None of the {len(finished.known)} runs in the files has the same settings as one "
                "that is not finished here."
            )
    train(own, workers, console, imported, settings.run_count)
    first = TrainedRuns(settings, finished, selecting)
    keys = set(map(_key, first.to_compare))
    of_selected = [run for run in runs if _key(run) in keys]
    further = [run for run in of_selected if run.seed not in settings.selection_seeds]
    rungs = _plan_rungs(settings, runs, first)
    again = finished.incomplete([*of_selected, *rungs], documents=len(settings.seeds) == 1)
    if again:
        console.print(
            f"{len(again)} imported runs are trained again: their comparison needs losses of "
            "documents (with one seed) or of the test split, which are not imported."
        )
    rest = [*finished.local([*further, *rungs]), *again]
    used = {run.folder for run in (*selecting, *further, *rungs)}
    if rest:
        train(rest, workers, console, len(used) - len(rest), len(used))
    return TrainedRuns(settings, finished, [run for run in runs if run.folder in used], rungs)


def _check_ladder(
    ladder: Ladder, runs: Sequence[PlannedRun], finished: FinishedRuns, baseline: str
) -> None:
    for run in runs:
        check_epochs(run)
    whole = next(run for run in runs if run.arm == baseline)
    tokens = finished.train_tokens(whole)
    rungs = plan_rungs([whole], baseline, ladder, tokens)
    check_sizes(ladder, [*(_rung_tokens(rung, finished) for rung in rungs), tokens])


def _rung_tokens(rung: PlannedRun, finished: FinishedRuns) -> int:
    try:
        return finished.train_tokens(rung)
    except ValueError as error:
        raise ValueError(f"ladder: share {rung.share}: {error}") from error


def _plan_rungs(
    settings: ComparisonSettings, runs: Sequence[PlannedRun], first: TrainedRuns
) -> list[PlannedRun]:
    if settings.ladder is None:
        return []
    selected = first.selected
    keys = set(map(_key, selected))
    tokens = first.finished.train_tokens(
        next(run for run in selected if run.arm == settings.baseline)
    )
    whole = [run for run in runs if _key(run) in keys]
    rungs = plan_rungs(whole, settings.baseline, settings.ladder, tokens)
    for run in rungs:
        check_claim(run)
    return rungs


def _key(trial: PlannedRun | ArmTrial) -> TrialKey:
    return trial.arm, str(trial.strength)
