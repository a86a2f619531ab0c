"""Progress of long-running work: a bar on a terminal, otherwise a line every 30 seconds."""

import logging
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from importlib.util import find_spec
from operator import length_hint
from time import monotonic
from typing import Protocol, TextIO, TypeVar

from lightning.pytorch.utilities import rank_zero_only
from rich import get_console
from rich.console import Console
from rich.progress import BarColumn, Progress, ProgressColumn, TextColumn

from lit_entrodrop.runtime.ranks import is_first

SECONDS_PER_LINE = 30.0
REFRESHES_PER_SECOND = 4.0
COLOR = "#6206E0"

T = TypeVar("T")


class Advance(Protocol):
    """Function that advances a bar."""

    def __call__(self, count: int = 1) -> None:
        """Count `count` more items as completed."""


def track(
    items: Iterable[T],
    description: str,
    total: int | None = None,
    completed: int = 0,
    unit: str = "items",
) -> Iterator[T]:
    """Yield items, and show on the first rank how many are completed.

    The arguments are those of :func:`progress`. Default of `total`: `len(items)`, if known.

    >>> sum(track([1, 2, 3], "Adding"))
    6
    """
    with progress(description, total or length_hint(items) or None, completed, unit) as advance:
        for item in items:
            yield item
            advance()


@contextmanager
def progress(
    description: str,
    total: int | None = None,
    completed: int = 0,
    unit: str = "items",
    seconds_per_line: float = SECONDS_PER_LINE,
) -> Iterator[Advance]:
    """Show on the first rank how many items are completed.

    The bar disappears at the end. It can be nested in another live display of `rich.get_console()`.
    Without a terminal, work that takes less than `seconds_per_line` prints nothing.

    Args:
        description: Title of the bar, such as "Scoring validation".
        total: Number of items, including those completed earlier; None if unknown. Default: None.
        completed: Number of items completed earlier, by an interrupted process. Default: 0.
        unit: Plural name of the items. Default: "items".
        seconds_per_line: Time between two lines without a terminal, in seconds. Default: 30.

    Yields:
        A function to call after each item, or with the number of items done since the last call.
    """
    if getattr(rank_zero_only, "rank", 0) or not is_first():
        yield lambda count=1: None
        return
    draws = can_draw()
    period = 1 / REFRESHES_PER_SECOND if draws else seconds_per_line
    started = monotonic()
    done, due = completed, started + (0 if draws else period)
    bar = Progress(
        *bar_columns(),
        TextColumn("{task.fields[status]}", markup=False),
        console=get_console(),
        auto_refresh=False,
        transient=True,
        disable=not draws,
    )
    task = bar.add_task(
        description, total=total, completed=done, status=_status(done, total, unit, None)
    )

    def advance(count: int = 1) -> None:
        nonlocal done, due
        done += count
        # An update may take longer than an item.
        if (now := monotonic()) < due:
            return
        due = now + period
        left = total and (now - started) / (done - completed) * max(0, total - done)
        status = _status(done, total, unit, left)
        if draws:
            bar.update(task, completed=done, status=status, refresh=True)
        else:
            print(f"{description}: {status}", file=sys.stderr, flush=True)

    with bar, logs_above_bar():
        bar.refresh()
        yield advance


def bar_columns() -> list[ProgressColumn]:
    """Return the first columns of every bar: the description and the bar."""
    return [
        TextColumn("{task.description}", markup=False),
        BarColumn(20, complete_style=COLOR, finished_style=COLOR, pulse_style=COLOR),
    ]


def can_draw() -> bool:
    """Return whether standard output is a terminal or a notebook that can draw a bar."""
    console = Console()
    return console.is_interactive or (console.is_jupyter and find_spec("ipywidgets") is not None)


@contextmanager
def logs_above_bar() -> Iterator[None]:
    """Send log messages to `sys.stderr`, which a live display replaces, instead of across the bar.

    Enter this context after the display has started.
    """
    original: TextIO = getattr(sys.stderr, "rich_proxied_file", sys.stderr)
    handlers = [each for each in _log_handlers() if each.stream is original]
    for handler in handlers:
        handler.setStream(sys.stderr)
    try:
        yield
    finally:
        for handler in handlers:
            handler.setStream(original)


def _status(done: int, total: int | None, unit: str, left: float | None) -> str:
    count = f"{done:,}" if total is None else f"{done:,}/{total:,}"
    return f"{count} {unit}" + ("" if left is None else f", {timedelta(seconds=int(left))} left")


def _log_handlers() -> list["logging.StreamHandler[TextIO]"]:
    logger: logging.Logger | None = logging.getLogger("lightning.pytorch")
    found: list[logging.StreamHandler[TextIO]] = []
    while logger:
        found += [each for each in logger.handlers if isinstance(each, logging.StreamHandler)]
        logger = logger.parent if logger.propagate else None
    return found
