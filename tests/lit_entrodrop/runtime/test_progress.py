import logging
import os
import pty
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import rich
from lightning.pytorch.utilities import rank_zero_info, rank_zero_only
from rich.live import Live

from lit_entrodrop.runtime import progress as module
from lit_entrodrop.runtime.progress import progress, track
from tests.helpers.clock import Clock

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="no pseudo-terminal")


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(module, "monotonic", clock.monotonic)
    return clock


class Screen:
    """A terminal of 120 columns."""

    def __init__(self, controller: int) -> None:
        os.set_blocking(controller, False)
        self._controller = controller

    def text(self) -> str:
        """Return what was written since the last call, without control codes."""
        raw = b""
        try:
            while chunk := os.read(self._controller, 65536):
                raw += chunk
        except OSError:
            pass
        return re.sub(r"\x1b\[[\d;?]*[a-zA-Z]", "", raw.decode())


@contextmanager
def terminal_screen(monkeypatch: pytest.MonkeyPatch) -> Iterator[Screen]:
    # No fixture: pytest replaces the streams again between fixtures and test.
    controller, terminal = pty.openpty()
    with os.fdopen(terminal, "w") as stream:
        monkeypatch.setattr(sys, "stdout", stream)
        monkeypatch.setattr(sys, "stderr", stream)
        monkeypatch.setenv("TERM", "xterm")
        monkeypatch.setenv("COLUMNS", "120")
        rich.reconfigure()
        yield Screen(controller)
    os.close(controller)
    rich.reconfigure()


def test_a_line_every_half_minute_without_a_terminal(
    clock: Clock, capsys: pytest.CaptureFixture[str]
) -> None:
    for _ in track(range(4, 10), "Scoring", total=10, completed=4, unit="batches"):
        clock.now += 20
    out, err = capsys.readouterr()
    assert out == ""
    assert err.splitlines() == [
        "Scoring: 6/10 batches, 0:01:20 left",
        "Scoring: 8/10 batches, 0:00:40 left",
        "Scoring: 10/10 batches, 0:00:00 left",
    ]


def test_short_work_prints_nothing_without_a_terminal(
    clock: Clock, capsys: pytest.CaptureFixture[str]
) -> None:
    assert list(track(iter("ab"), "Reading")) == ["a", "b"]
    assert capsys.readouterr() == ("", "")


def test_unknown_totals_are_counted(clock: Clock, capsys: pytest.CaptureFixture[str]) -> None:
    with progress("Waiting", unit="runs") as advance:
        clock.now = 31
        advance()
    assert capsys.readouterr().err == "Waiting: 1 runs\n"


def test_later_ranks_show_nothing(
    clock: Clock, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rank_zero_only, "rank", 1)
    for _ in track(range(3), "Scoring"):
        clock.now += 60
    assert capsys.readouterr() == ("", "")


def test_bar_on_a_terminal_disappears(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    with terminal_screen(monkeypatch) as screen:
        for number in track(range(3), "Packing", unit="chunks"):
            clock.now += 5
            if number:
                rich.get_console().print("seen")
        shown = screen.text()
        assert re.search(r"Packing \S+ 2/3 chunks, 0:00:05 left", shown)
        assert shown.rstrip().endswith("3/3 chunks, 0:00:00 left")


def test_bar_nested_in_a_live_display(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    with terminal_screen(monkeypatch) as screen:
        with Live("outer display", console=rich.get_console(), auto_refresh=False) as outer:
            for number in track(range(3), "Scoring"):
                clock.now += 5
                outer.refresh()
                if number == 2:
                    shown = screen.text()
            outer.refresh()
            afterwards = screen.text()
        # The bar is below the outer display, one frame after the other, without lines in between.
        assert re.search(r"outer display\r?\nScoring \S+ 2/3 items, 0:00:05 left", shown)
        assert "Scoring" not in afterwards.rpartition("outer display")[2]


def test_logs_and_warnings_are_written_above_the_bar(
    clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    with terminal_screen(monkeypatch) as screen:
        logger = logging.getLogger("lightning.pytorch")
        handler: Any = logging.StreamHandler(sys.stderr)
        logger.addHandler(handler)
        original = handler.stream
        try:
            for _ in track(range(2), "Scoring"):
                clock.now += 5
                assert handler.stream is sys.stderr
                rank_zero_info("a message")
        finally:
            logger.removeHandler(handler)
        assert handler.stream is original
        assert re.search(r"\r\s*a message *\r?\nScoring ", screen.text())
