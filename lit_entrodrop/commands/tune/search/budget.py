"""Time that a search may take, and how many trials fit into it."""

import re
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from math import ceil

from lit_entrodrop.commands.tune.search.outcome import (
    FINALISTS,
    TrialOutcome,
    best_plain,
    finalists,
)

UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400}
DURATION = re.compile(r"(\d+(?:\.\d+)?)([smhd])")
# A search of fewer trials, half of them plain, compares nothing.
FEWEST_TRIALS = 4
FEWEST_SEEDS = 3
# Runs that share a machine with others, and tests, take longer than the runs of the search.
FINAL_ALLOWANCE = 1.25
ADVICE = (
    "raise it, shorten the runs (trainer.max_epochs), or run several at a time (--parallel, "
    "--devices). The same command with another budget keeps finished runs"
)


def parse_duration(text: str) -> float:
    """Return a duration in seconds.

    Raises:
        ValueError: If the text is none.

    >>> parse_duration("1h30m"), parse_duration("90s")
    (5400.0, 90.0)
    """
    parts = DURATION.findall(text)
    if not parts or "".join(map("".join, parts)) != text:
        raise ValueError(f"budget: expected a duration such as 40m, 2h or 1h30m, got {text!r}")
    return float(sum(float(number) * UNITS[unit] for number, unit in parts))


@dataclass(frozen=True)
class Limits:
    """Limits of a search.

    Args:
        seconds: Time for search and final runs; None for no limit.
        trials: Number of trials of both studies together; None for no limit.
        seeds: Number of seeds of the final runs.
    """

    seconds: float | None
    trials: int | None
    seeds: int = 3

    @classmethod
    def parse(cls, budget: str | None, trials: int | None, seeds: int) -> "Limits":
        """Check the limits that a user has given.

        Raises:
            ValueError: If one is wrong.
        """
        if trials is not None and trials < FEWEST_TRIALS:
            raise ValueError(
                f"trials: expected at least {FEWEST_TRIALS}, half of them plain, got {trials}: "
                "raise it"
            )
        if seeds < FEWEST_SEEDS:
            raise ValueError(
                f"seeds: expected at least {FEWEST_SEEDS}, as intervals are over seeds, got "
                f"{seeds}: raise it"
            )
        return cls(None if budget is None else parse_duration(budget), trials, seeds)


@dataclass
class Budget:
    """What is left of the limits of a search.

    Args:
        limits: Limits of the search.
        workers: Number of runs at a time.
        earlier: Seconds that earlier sessions of the same search have taken.
    """

    limits: Limits
    workers: int
    earlier: float = 0.0
    _started: float = field(default_factory=time.monotonic)

    @property
    def spent(self) -> float:
        """Seconds that all sessions have taken."""
        return self.earlier + time.monotonic() - self._started

    def search_left(self, trials: Sequence[TrialOutcome]) -> float | None:
        """Return the seconds left for the search, without the time for the final runs."""
        if self.limits.seconds is None:
            return None
        return self.limits.seconds - self.spent - self.final_seconds(trials)

    def final_seconds(self, trials: Sequence[TrialOutcome]) -> float:
        """Return the expected time of the final runs, from those of the search."""
        plain, best = best_plain(trials), finalists(trials)
        known = [trial.seconds for trial in (plain, *best) if trial is not None]
        if not known:
            return 0.0
        runs = self.limits.seeds * (1 + FINALISTS)
        return ceil(runs / self.workers) * FINAL_ALLOWANCE * sum(known) / len(known)

    def allows(self, trials: Sequence[TrialOutcome]) -> bool:
        """Return whether another trial may begin.

        Raises:
            ValueError: If the budget is too small for a search.
        """
        if self.limits.trials is not None and len(trials) >= self.limits.trials:
            return False
        left, seconds = self.search_left(trials), mean_seconds(trials)
        if left is None:
            return True
        if seconds is None:
            # The first run shows how many fit.
            self.check_first(trials)
            return True
        if _ended(trials) < FEWEST_TRIALS:
            self._check(trials, seconds)
        return left >= seconds

    def fitting(self, trials: Sequence[TrialOutcome]) -> int | None:
        """Return how many trials are expected in all, None before the first has finished."""
        left, seconds = self.search_left(trials), mean_seconds(trials)
        if left is None:
            return self.limits.trials
        if not seconds:
            return None
        fit = max(len(trials), self._fitting(trials, left, seconds))
        return fit if self.limits.trials is None else min(fit, self.limits.trials)

    def check_first(self, trials: Sequence[TrialOutcome]) -> None:
        """Check that the budget lasts until the first trial ends.

        Raises:
            ValueError: If it is spent before.
        """
        left = self.search_left(trials)
        if left is not None and left <= 0 and mean_seconds(trials) is None:
            raise ValueError(
                f"budget: expected more than {duration(self.spent)}, as no run has ended since "
                f"the search began, got {duration(self.limits.seconds or 0.0)}: {ADVICE}"
            )

    def _fitting(self, trials: Sequence[TrialOutcome], left: float, seconds: float) -> int:
        return _ended(trials) + int(max(0.0, left) * self.workers / seconds)

    def _check(self, trials: Sequence[TrialOutcome], seconds: float) -> None:
        assert self.limits.seconds is not None
        left = self.search_left(trials)
        assert left is not None
        fit = self._fitting(trials, left, seconds)
        if fit >= FEWEST_TRIALS and left >= 0:
            return
        final = self.final_seconds(trials)
        needed = final + FEWEST_TRIALS * seconds / self.workers
        raise ValueError(
            f"budget: expected at least {duration(needed * 1.1)}, got "
            f"{duration(self.limits.seconds)}, into which {fit} trials fit: a run takes about "
            f"{duration(seconds)}, a search has at least {FEWEST_TRIALS} trials, and the final "
            f"runs take about {duration(final)}: {ADVICE}"
        )


def _ended(trials: Sequence[TrialOutcome]) -> int:
    return sum(trial.state != "running" for trial in trials)


def mean_seconds(trials: Sequence[TrialOutcome]) -> float | None:
    """Return the mean time of a trial that has ended, None if there is none."""
    ended = [trial.seconds for trial in trials if trial.state in ("finished", "pruned")]
    return sum(ended) / len(ended) if ended else None


def duration(seconds: float) -> str:
    """Return a duration as text.

    >>> duration(5400), duration(75), duration(8)
    ('1 h 30 min', '1 min 15 s', '8 s')
    """
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"
