"""Progress of a search on the terminal."""

from collections.abc import Sequence

from rich.console import Console

from lit_entrodrop.commands.compare.running.process_pool import Task
from lit_entrodrop.commands.compare.running.progress_reporter import ProgressReporter, time_left
from lit_entrodrop.commands.tune.search.budget import Budget, mean_seconds
from lit_entrodrop.commands.tune.search.outcome import TrialOutcome, best_plain, finalists


class SearchReporter(ProgressReporter):
    """Print a line for each trial that ends, and show those that are running.

    The line above them has the best losses so far, the number of trials and the time left.
    """

    def __init__(self, console: Console, budget: Budget) -> None:
        super().__init__(console, "trials", 0, 0, budget.workers)
        self.budget = budget
        self.outcomes: list[TrialOutcome] = []

    def heading(self, running: Sequence[Task], now: float) -> str:
        """Return the line above the running trials."""
        states = [trial.state for trial in self.outcomes]
        counts = [f"{states.count('finished')} trials finished", f"{states.count('pruned')} pruned"]
        if failed := states.count("failed"):
            counts.append(f"{failed} failed")
        if fit := self.budget.fitting(self.outcomes):
            counts.append(f"about {fit} in all")
        left = self.budget.search_left(self.outcomes)
        # Before a trial has ended, the time for the final runs is unknown.
        is_known = left is not None and mean_seconds(self.outcomes) is not None
        searching = f"{time_left(max(0.0, left or 0.0))} for the search" if is_known else ""
        return f"{', '.join(counts)}{searching}{self.best()}"

    def best(self) -> str:
        """Return the best losses so far, of the methods and of plain fine-tuning."""
        plain = best_plain(self.outcomes)
        known = [*finalists(self.outcomes)[:1], *([plain] if plain else [])]
        found = ", ".join(f"{trial.sample.label} {trial.score:.4f}" for trial in known)
        return f"; best so far: {found}" if found else ""
