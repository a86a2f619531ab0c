"""How the runs of a comparison go, told on the terminal while they do."""

import time
from collections.abc import Sequence
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from lit_entrodrop.commands.compare.processes import Job, Watcher

REFRESH_SECONDS = 2.0


class Told(Watcher):
    """Prints a line for each run that ends, and below them shows those that are under way.

    Args:
        console: where to.
        title: what is done.
        done: how many were done before.
        total: how many there are.
    """

    def __init__(self, console: Console, title: str, done: int, total: int) -> None:
        self._console = console
        self._bars = Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=20),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            console=console,
            transient=True,
            disable=not console.is_terminal,
        )
        self._title = title
        self._all = self._bars.add_task(title, total=total, completed=done)
        self._refreshed = 0.0

    def __enter__(self) -> "Told":
        self._bars.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._bars.stop()

    def on_start(self, job: Job) -> None:
        """Say it where no bar does."""
        if not self._console.is_terminal:
            self._say(f"{job.title}: started")

    def on_wait(self, job: Job) -> None:
        """Say what is waited for."""
        self._say(
            f"{job.title}: waits for a process that an earlier comparison has left, and goes on "
            "from what it leaves"
        )

    def on_end(self, job: Job, status: int, seconds: float) -> None:
        """Say how it went."""
        how = job.progress() if status == 0 else f"failed with status {status}, see {job.log}"
        self._say(f"{job.title}: {how} ({seconds:.0f} s)")
        self._bars.advance(self._all)

    def on_poll(self, running: Sequence[Job]) -> None:
        """Show from time to time what is under way."""
        if self._console.is_terminal and time.monotonic() > self._refreshed + REFRESH_SECONDS:
            self._refreshed = time.monotonic()
            told = "; ".join(f"{job.title}: {job.progress()}" for job in running)
            self._bars.update(self._all, description=f"{self._title}  {told}")

    def _say(self, text: str) -> None:
        self._console.print(text, markup=False, highlight=False, soft_wrap=True)
