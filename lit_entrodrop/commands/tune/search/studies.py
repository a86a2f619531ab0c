"""The two studies of a search, in one SQLite file: plain fine-tuning, and the whole space."""

import json
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from functools import cached_property
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lit_entrodrop.commands.compare.planning.config_differences import first_difference
from lit_entrodrop.commands.tune.search.outcome import TrialOutcome
from lit_entrodrop.commands.tune.search.trial_losses import TENTHS
from lit_entrodrop.commands.tune.space.sample import PLAIN, Sample
from lit_entrodrop.commands.tune.space.space import METHOD, Space

if TYPE_CHECKING:
    from optuna import Study, Trial

FILE_NAME = "search.sqlite"
METHODS = "methods"
# Finished runs without which nothing is pruned, and the tenths of a run before which it is not.
STARTUP_RUNS, WARMUP_TENTHS = 4, 3
# Finished trials without which no importance is given, and the share of them that count as good.
FEWEST_FOR_IMPORTANCE, QUANTILE = 10, 0.3


def require_optuna() -> None:
    """Check that the package that searches is installed.

    Raises:
        ValueError: If it is not.
    """
    if find_spec("optuna") is None:
        raise ValueError(
            "tune: expected the package optuna, found none: pip install 'lit-entrodrop[tune]'"
        )


@dataclass
class OpenTrial:
    """A trial that has begun, and the last tenth of its run whose loss was reported."""

    study: "Study"
    trial: "Trial"
    sample: Sample
    reported: int = 0
    earlier: Mapping[str, Any] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """Name of the trial, also of its folder."""
        return str(self.trial.user_attrs["name"])


class Studies:
    """Two studies with the same number of trials.

    A trial whose run has died is tried again, in the same folder. The first trials are plain
    fine-tuning and each method once, with the plain settings of the config.

    Args:
        folder: Folder of the search.
        space: What may be tried.
        config: Complete config for `fit`.

    Raises:
        ValueError: If the folder contains a search with another config or space.
    """

    def __init__(self, folder: Path, space: Space, config: Mapping[str, Any]) -> None:
        self._folder, self._space, self._config = folder, space, config
        known = self.plain.user_attrs
        if not known:
            self._begin()
        elif difference := first_difference(config, json.loads(known["config"])):
            raise ValueError(
                f"output: expected the config with which the search in {folder} was begun, but "
                f"{difference}: change it back, or choose another --output"
            )
        elif known["space"] != repr(space):
            raise ValueError(
                f"output: expected the space with which the search in {folder} was begun, got "
                "another: change it back, or choose another --output"
            )
        else:
            self._try_again()

    @cached_property
    def plain(self) -> "Study":
        """Study of plain fine-tuning."""
        return self._study(PLAIN)

    @cached_property
    def whole(self) -> "Study":
        """Study of the whole space."""
        return self._study(METHODS)

    @property
    def seconds(self) -> float:
        """Time that earlier sessions have searched."""
        return float(self.plain.user_attrs.get("seconds", 0.0))

    def set_seconds(self, seconds: float) -> None:
        """Record the time that this and earlier sessions have searched."""
        self.plain.set_user_attr("seconds", seconds)

    def ask(self) -> OpenTrial:
        """Begin a trial of the study that has fewer."""
        counts = [len(_begun(study)) for study in (self.plain, self.whole)]
        study = self.plain if counts[0] <= counts[1] else self.whole
        number = len(_named(study))
        with _quiet():
            trial = study.ask()
            sample = self._space.suggest(trial, is_whole=study is self.whole)
        trial.set_user_attr("sample", asdict(sample))
        if "name" not in trial.user_attrs:
            trial.set_user_attr("name", f"{study.study_name}-{number:03}")
        return OpenTrial(study, trial, sample, earlier=dict(trial.user_attrs))

    def report(self, opened: OpenTrial, losses: Sequence[tuple[int, float]]) -> bool:
        """Report losses by tenth of the run; return whether the run should be pruned.

        Runs of different lengths are compared at the same share of their schedule.
        """
        new = [(tenth, loss) for tenth, loss in losses if tenth > opened.reported]
        if not new:
            return False
        with _quiet():
            for tenth, loss in new:
                opened.trial.report(loss, tenth)
            opened.reported = new[-1][0]
            # Only the last loss shows if the run still improves. At its end, nothing is saved.
            return opened.reported < TENTHS and opened.trial.should_prune()

    def record_seconds(self, opened: OpenTrial, seconds: float) -> None:
        """Record how long this and earlier runs of a trial have taken."""
        earlier = float(opened.earlier.get("seconds", 0.0))
        opened.trial.set_user_attr("seconds", earlier + seconds)

    def finish(self, opened: OpenTrial, outcome: TrialOutcome) -> None:
        """Record the outcome of a trial."""
        from optuna.trial import TrialState

        self.record_seconds(opened, outcome.seconds)
        for name in ("steps", "total_steps", "score"):
            opened.trial.set_user_attr(name, getattr(outcome, name))
        if outcome.state == "finished":
            opened.study.tell(opened.trial, outcome.score)
        else:
            state = TrialState.PRUNED if outcome.state == "pruned" else TrialState.FAIL
            opened.study.tell(opened.trial, state=state)

    def outcomes(self) -> list[TrialOutcome]:
        """Return all trials of both studies, except those that are tried again."""
        return [
            TrialOutcome(
                study.study_name,
                int(str(each.user_attrs["name"]).rpartition("-")[2]),
                STATES[each.state.name],
                Sample(**each.user_attrs["sample"]),
                each.params,
                each.user_attrs.get("score"),
                float(each.user_attrs.get("seconds", 0.0)),
                int(each.user_attrs.get("steps", 0)),
                int(each.user_attrs.get("total_steps", 0)),
            )
            for study in (self.plain, self.whole)
            for each in _begun(study)
        ]

    def importances(self) -> dict[str, float]:
        """Return the importance of what the whole space has in every trial, summing to 1.

        It is empty for few trials, whose importances would be noise.
        """
        import optuna

        trials = self.whole.get_trials(deepcopy=False, states=(optuna.trial.TrialState.COMPLETE,))
        if len(trials) < FEWEST_FOR_IMPORTANCE:
            return {}
        space = self._space
        with _quiet():
            # It needs no further package, unlike fANOVA.
            found = optuna.importance.get_param_importances(
                self.whole,
                evaluator=optuna.importance.PedAnovaImportanceEvaluator(target_quantile=QUANTILE),
                params=[*space.plain, *space.groups, *space.settings],
            )
        return {name: float(value) for name, value in found.items()}

    def _study(self, name: str) -> "Study":
        import optuna

        optuna.logging.set_verbosity(optuna.logging.WARNING)
        self._folder.mkdir(parents=True, exist_ok=True)
        with _quiet():
            study = optuna.create_study(
                study_name=name,
                storage=f"sqlite:///{self._folder / FILE_NAME}",
                load_if_exists=True,
                # A run whose loss still falls is never pruned: regularized runs have their best
                # loss later than those that overfit.
                pruner=optuna.pruners.PatientPruner(
                    optuna.pruners.MedianPruner(STARTUP_RUNS, WARMUP_TENTHS), patience=1
                ),
            )
            # A resumed search must not draw the same values again.
            seed = int(self._config["seed_everything"]) + len(study.trials)
            study.sampler = optuna.samplers.TPESampler(seed=seed)
        return study

    def _begin(self) -> None:
        start = self._space.start(self._config)
        self.plain.enqueue_trial(start)
        for name, method in self._space.groups[METHOD].items():
            if not method.is_plain:
                self.whole.enqueue_trial({**start, METHOD: name})
        self.plain.set_user_attr("space", repr(self._space))
        self.plain.set_user_attr("config", json.dumps(self._config))

    def _try_again(self) -> None:
        from optuna.trial import TrialState

        for study in (self.plain, self.whole):
            for each in _named(study):
                if each.state == TrialState.RUNNING:
                    study.tell(each.number, state=TrialState.FAIL)
                elif each.state != TrialState.FAIL:
                    continue
                kept = {n: each.user_attrs[n] for n in ("name", "seconds") if n in each.user_attrs}
                study.enqueue_trial(each.params, user_attrs=kept)


def _named(study: "Study") -> list[Any]:
    """Return the trials of a study that have a name; of those with the same name, the last."""
    trials = study.get_trials(deepcopy=False)
    named = {each.user_attrs["name"]: each for each in trials if "name" in each.user_attrs}
    return list(named.values())


def _begun(study: "Study") -> list[Any]:
    """Return the trials of a study that have begun and do not wait to be tried again."""
    return [each for each in _named(study) if "sample" in each.user_attrs]


STATES: dict[str, Any] = {
    "COMPLETE": "finished",
    "PRUNED": "pruned",
    "FAIL": "failed",
    "RUNNING": "running",
}


@contextmanager
def _quiet() -> Iterator[None]:
    """Ignore warnings about experimental parts, and about values of the config out of range."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
