"""Outcomes of trials, and which of them reach the final runs."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from lit_entrodrop.commands.tune.space.sample import Sample

FINALISTS = 3
State = Literal["finished", "pruned", "failed", "running"]


@dataclass(frozen=True)
class TrialOutcome:
    """A trial and what came of it.

    Args:
        study: ``plain`` or ``methods``.
        number: Number within the study, from 0.
        state: Whether its run has finished, was pruned, has failed or is running.
        sample: Values that it tries.
        params: The same, as Optuna names them.
        score: Best value of what selects checkpoints, by default the validation loss in nats per
            token; lower is better. None if unknown.
        seconds: Time of its run.
        steps: Optimizer steps that its run has done.
        total_steps: Optimizer steps of the whole run, 0 if unknown.
    """

    study: str
    number: int
    state: State
    sample: Sample
    params: Mapping[str, Any] = field(default_factory=dict)
    score: float | None = None
    seconds: float = 0.0
    steps: int = 0
    total_steps: int = 0

    @property
    def name(self) -> str:
        """Name of the trial, also of its folder."""
        return f"{self.study}-{self.number:03}"


def ranked(trials: Sequence[TrialOutcome]) -> list[TrialOutcome]:
    """Return the finished trials, the best first.

    >>> scores = [3.0, 2.0]
    >>> trials = [TrialOutcome("plain", i, "finished", Sample({}), score=scores[i]) for i in (0, 1)]
    >>> [trial.number for trial in ranked(trials)]
    [1, 0]
    """
    finished = [trial for trial in trials if trial.state == "finished" and trial.score is not None]
    return sorted(finished, key=lambda trial: trial.score or 0.0)


def best_plain(trials: Sequence[TrialOutcome]) -> TrialOutcome | None:
    """Return the best finished trial of plain fine-tuning, of both studies."""
    return next((trial for trial in ranked(trials) if trial.sample.is_plain), None)


def finalists(trials: Sequence[TrialOutcome]) -> list[TrialOutcome]:
    """Return the best finished trials with a method: those that plain must be compared with."""
    return [trial for trial in ranked(trials) if not trial.sample.is_plain][:FINALISTS]
