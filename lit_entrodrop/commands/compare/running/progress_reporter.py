"""Progress of a comparison on the terminal."""

import time
from collections.abc import Sequence
from datetime import timedelta

from rich.console import Console
from rich.live import Live
from rich.text import Text

from lit_entrodrop.commands.compare.running.loss_curves import loss_curves
from lit_entrodrop.commands.compare.running.process_pool import Task, TaskObserver
from lit_entrodrop.commands.compare.running.run_progress import RunProgress

POLL_SECONDS = 2.0
# Without a terminal, between two lines about the same task.
LINE_SECONDS = 30.0
# Number of runs whose losses a terminal shows: the latest ones.
CURVES = 8


class ProgressReporter(TaskObserver):
    """Print a line for each task that ends, and show those that are running.

    A terminal shows the running tasks below the lines, up to date, and the losses of the latest
    runs over training. Elsewhere, as in a log file or a notebook, the state of running tasks is
    printed every 30 seconds. ``what`` is what is counted, such as ``runs trained``; ``done`` of
    ``total`` were done before, and tasks of later stages may follow.
    """

    def __init__(self, console: Console, what: str, done: int, total: int, workers: int) -> None:
        self._console = console
        self._what, self._done, self._total, self._workers = what, done, total, workers
        self._live = Live(console=console, transient=True, auto_refresh=False)
        self._estimates: dict[str, TimeEstimate] = {}
        self._losses: dict[str, Sequence[float]] = {}
        self._next_poll = self._next_line = time.monotonic()

    def __enter__(self) -> "ProgressReporter":
        if self._console.is_terminal:
            self._live.start()
        self._next_line = time.monotonic() + LINE_SECONDS
        return self

    def __exit__(self, *_: object) -> None:
        self._live.stop()

    def on_start(self, task: Task) -> None:
        """Start timing a task."""
        progress = task.progress()
        self._estimates[task.title] = TimeEstimate(0 if progress is None else progress.step)
        if not self._console.is_terminal:
            self._print(f"{task.title}: started")

    def on_wait(self, task: Task) -> None:
        """Print what the comparison is waiting for."""
        self._print(f"{task.title}: waiting for the process that an earlier comparison started")

    def on_end(self, task: Task, status: int, seconds: float) -> None:
        """Print the outcome of a task."""
        self._done += 1
        self._estimates[task.title].end(seconds)
        self._print(f"{task.title}: {self.outcome(task, status)} ({seconds:.0f} s)")

    def on_poll(self, running: Sequence[Task], waiting: Sequence[Task]) -> None:
        """Show the running tasks if an update is due."""
        now = time.monotonic()
        if now < self._next_poll or not running:
            return
        self._next_poll = now + POLL_SECONDS
        lines = self._lines(running, now)
        if self._console.is_terminal:
            curves = loss_curves(dict(list(self._losses.items())[-CURVES:]))
            self._live.update(Text("\n".join([*lines, *curves])), refresh=True)
        elif now >= self._next_line:
            self._next_line = now + LINE_SECONDS
            self._print("\n".join(lines))

    def outcome(self, task: Task, status: int) -> str:
        """Describe how a task has ended."""
        if status != 0:
            return f"failed with status {status}, see {task.log}"
        return str(self._progress(task) or "done")

    def heading(self, running: Sequence[Task], now: float) -> str:
        """Return the line above the running tasks."""
        # Those of a later stage wait too.
        waiting = self._total - self._done - len(running)
        left = self._seconds_left([task.title for task in running], waiting, now)
        return f"{self._done} of {self._total} {self._what}{time_left(left)}"

    def _lines(self, running: Sequence[Task], now: float) -> list[str]:
        lines = []
        for task in running:
            progress, estimate = self._progress(task), self._estimates[task.title]
            if progress is not None:
                estimate.update(progress, now)
            lines.append(f"  {task.title}: {progress or 'starting'}{time_left(estimate.left(now))}")
        return [self.heading(running, now), *lines]

    def _progress(self, task: Task) -> RunProgress | None:
        progress = task.progress()
        if progress is not None:
            self._losses[task.title] = progress.losses
        return progress

    def _seconds_left(self, running: Sequence[str], waiting: int, now: float) -> float | None:
        known = (self._estimates[title].left(now) for title in running)
        lefts = [left for left in known if left is not None]
        all_durations = (estimate.duration for estimate in self._estimates.values())
        durations = [duration for duration in all_durations if duration is not None]
        if len(lefts) < len(running) or (waiting and not durations):
            return None
        queued = waiting * sum(durations) / len(durations) if waiting else 0.0
        return max([*lefts, (sum(lefts) + queued) / self._workers])

    def _print(self, text: str) -> None:
        self._console.print(text, markup=False, highlight=False, soft_wrap=True)


class TimeEstimate:
    """Estimate of the time that a task takes, from its steps since it was at ``step``.

    >>> estimate = TimeEstimate(step=0)
    >>> estimate.update(RunProgress(10, total_steps=40), now=100.0)
    >>> estimate.update(RunProgress(20, total_steps=40), now=105.0)
    >>> estimate.left(now=106.0)
    9.0
    """

    def __init__(self, step: int) -> None:
        self.duration: float | None = None
        self._started = time.monotonic()
        self._step, self._total = step, step
        # Start-up and the first evaluation would distort the time of a step.
        self._first: tuple[float, int] | None = None
        self._last_time = 0.0

    def update(self, progress: RunProgress, now: float) -> None:
        """Take a new position into account."""
        self._total = progress.total_steps or 0
        if progress.step > self._step:
            self._first = self._first or (now, progress.step)
            self._step, self._last_time = progress.step, now
        if (left := self.left(now)) is not None:
            self.duration = now - self._started + left

    def end(self, seconds: float) -> None:
        """Replace the estimate by the time that the task has taken."""
        self.duration = seconds

    def left(self, now: float) -> float | None:
        """Return the time left in seconds, None if unknown."""
        if self._first is None or self._step == self._first[1] or not self._total:
            return None
        seconds_per_step = (self._last_time - self._first[0]) / (self._step - self._first[1])
        return max(0.0, (self._total - self._step) * seconds_per_step - (now - self._last_time))


def time_left(seconds: float | None) -> str:
    """Return the end of a line that states the time left.

    >>> time_left(75.2), time_left(None)
    (', 0:01:15 left', '')
    """
    return "" if seconds is None else f", {timedelta(seconds=round(seconds))} left"
