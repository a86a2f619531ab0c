"""Search: trials one after another, several at a time, until the budget is spent."""

import shutil
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from rich.console import Console

from lit_entrodrop.commands.compare.measuring.measures import SCORE, measure
from lit_entrodrop.commands.compare.planning.planned_run import PlannedRun
from lit_entrodrop.commands.compare.running.process_pool import (
    Task,
    Workers,
    last_lines,
    run_tasks,
    stop,
)
from lit_entrodrop.commands.compare.running.run_progress import read_progress
from lit_entrodrop.commands.compare.running.training import fit_task, has_diverged
from lit_entrodrop.commands.tune.search.budget import Budget
from lit_entrodrop.commands.tune.search.outcome import State, TrialOutcome
from lit_entrodrop.commands.tune.search.reporter import SearchReporter
from lit_entrodrop.commands.tune.search.studies import OpenTrial, Studies
from lit_entrodrop.commands.tune.search.trial_losses import losses_by_tenth
from lit_entrodrop.commands.tune.space.sampled_config import sampled_config
from lit_entrodrop.commands.tune.space.space import Space
from lit_entrodrop.runs.layout import CHECKPOINTS

FOLDER = "trials"
# Between two looks at the losses of a run.
POLL_SECONDS = 1.0
# Between two records of the time spent: a killed search forgets less than that.
RECORD_SECONDS = 10.0
MOST_FAILURES = 3


class Search(SearchReporter):
    """Trials of both studies as tasks of a process pool.

    Args:
        studies: Studies, which decide what to try.
        space: What may be tried.
        config: Complete config for `fit`.
        folder: Folder of the search.
        budget: Limits of the search.
        console: Console for the progress.
    """

    def __init__(
        self,
        studies: Studies,
        space: Space,
        config: Mapping[str, Any],
        folder: Path,
        budget: Budget,
        console: Console,
    ) -> None:
        super().__init__(console, budget)
        self._studies, self._space, self._config = studies, space, config
        self._folder = folder
        self._open: dict[str, tuple[OpenTrial, PlannedRun]] = {}
        self._next_look = self._next_record = 0.0
        self._failures = 0
        self.outcomes = studies.outcomes()

    def run(self, workers: Workers) -> list[TrialOutcome]:
        """Run trials until the budget is spent, and return all of them.

        Raises:
            ValueError: If the budget is too small, or runs fail.
        """
        with self:
            run_tasks([], workers, self, more=self._tasks())
        return self.outcomes

    def _tasks(self) -> Iterator[Task]:
        while self.budget.allows(self.outcomes):
            opened = self._studies.ask()
            run = planned_trial(self._config, self._space, opened, self._folder)
            task = fit_task(run)
            self._open[task.title] = opened, run
            self.outcomes = self._studies.outcomes()
            yield task

    def on_poll(self, running: Sequence[Task], waiting: Sequence[Task]) -> None:
        """Stop the runs that their study prunes, and record the time."""
        now = time.monotonic()
        if now >= self._next_look:
            self._next_look = now + POLL_SECONDS
            for task in running:
                opened, run = self._open[task.title]
                if self._studies.report(opened, losses_by_tenth(run.folder)):
                    stop(task)
        if now >= self._next_record:
            self._next_record = now + RECORD_SECONDS
            self._studies.set_seconds(self.budget.spent)
            for task in running:
                self._studies.record_seconds(self._open[task.title][0], now - task.started)
        self.budget.check_first(self.outcomes)
        super().on_poll(running, waiting)

    def on_end(self, task: Task, status: int, seconds: float) -> None:
        """Record the outcome of a trial."""
        opened, run = self._open.pop(task.title)
        outcome = read_outcome(opened, run, task, status, seconds)
        self._studies.finish(opened, outcome)
        if outcome.state != "failed":
            # The final runs start from the initial model, with other seeds.
            shutil.rmtree(run.folder / CHECKPOINTS, ignore_errors=True)
        self._studies.set_seconds(self.budget.spent)
        self.outcomes = self._studies.outcomes()
        super().on_end(task, status, seconds)
        self._failures = self._failures + 1 if outcome.state == "failed" else 0
        is_first = len(self.outcomes) == 1
        if outcome.state == "failed" and (is_first or self._failures == MOST_FAILURES):
            raise ValueError(
                f"tune: {task.title} failed, status {status}; the end of {task.log}:\n"
                f"{last_lines(task.log)}\nCorrect the cause and start the same command again, "
                "which keeps finished runs"
            )

    def outcome(self, task: Task, status: int) -> str:
        """Describe how a trial has ended, and the best ones so far."""
        is_pruned = state_of(task, status) == "pruned"
        ended = super().outcome(task, 0 if is_pruned else status)
        why = "" if not is_pruned else "pruned at " if task.is_stopped else "diverged at "
        return f"{why}{ended}{self.best()}"


def planned_trial(
    config: Mapping[str, Any], space: Space, opened: OpenTrial, folder: Path
) -> PlannedRun:
    """Return the run of a trial."""
    own = sampled_config(config, space, opened.sample)
    place = folder / FOLDER / opened.name
    own["trainer"]["default_root_dir"] = str(place)
    method = "" if opened.sample.is_plain else f" ({opened.sample.label})"
    return PlannedRun(f"{opened.name}{method}", {}, int(config["seed_everything"]), place, own)


def state_of(task: Task, status: int) -> State:
    """Return how a run has ended. One that diverged is pruned: a retry would diverge again."""
    if task.is_stopped or (status and has_diverged(task.log)):
        return "pruned"
    return "failed" if status else "finished"


def read_outcome(
    opened: OpenTrial, run: PlannedRun, task: Task, status: int, seconds: float
) -> TrialOutcome:
    """Return the outcome of a run that has ended."""
    state = state_of(task, status)
    progress, score = read_progress(run.folder), None
    with suppress(ValueError, OSError):
        score = measure(run.folder).values[SCORE]
    if score is None and state == "finished":
        state = "failed"
    study, _, number = opened.name.rpartition("-")
    return TrialOutcome(
        study,
        int(number),
        state,
        opened.sample,
        opened.trial.params,
        score,
        seconds,
        progress.step if progress else 0,
        (progress.total_steps or 0) if progress else 0,
    )
