import io
from pathlib import Path

import pytest
from rich.console import Console

from lit_entrodrop.commands.compare.running.process_pool import Task
from lit_entrodrop.commands.compare.running.progress_reporter import ProgressReporter
from lit_entrodrop.commands.compare.running.run_progress import RunProgress
from tests.helpers.clock import Clock


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock(100.0)
    monkeypatch.setattr("lit_entrodrop.commands.compare.running.progress_reporter.time", clock)
    return clock


@pytest.mark.parametrize("is_terminal", [True, False])
def test_every_task_is_reported(is_terminal: bool, clock: Clock) -> None:
    printed = io.StringIO()
    console = Console(file=printed, force_terminal=is_terminal, width=120)
    position = RunProgress(3, total_steps=9, epoch=1, train_loss=2.5)
    task = Task("plain seed 0", [], Path("x.log"), Path("x"), progress=lambda: position)
    other = Task("other [x]", [], Path("y.log"), Path("y"))
    with ProgressReporter(console, "runs trained", done=1, total=3, workers=1) as reporter:
        reporter.on_start(task)
        reporter.on_wait(other)
        clock.now += 31
        reporter.on_poll([task], [other])
        reporter.on_end(task, 0, 12.3)
        reporter.on_start(other)
        reporter.on_end(other, 3, 0.0)
    text = printed.getvalue()
    assert "plain seed 0: epoch 1, step 3/9, training loss 2.500 (12 s)" in text
    assert "other [x]: failed with status 3, see y.log (0 s)" in text
    assert "other [x]: waiting for the process" in text
    assert "1 of 3 runs trained" in text
    assert ("0: started" in text) == (not is_terminal)


def test_running_tasks_are_printed_every_half_minute_with_the_time_left(clock: Clock) -> None:
    printed = io.StringIO()
    steps = {"a": 0, "b": 0}

    def task(name: str) -> Task:
        progress = lambda: RunProgress(steps[name], total_steps=60)  # noqa: E731
        return Task(name, [], Path("x.log"), Path("x"), progress=progress)

    tasks, waiting = [task("a"), task("b")], [task("c"), task("d")]
    with ProgressReporter(Console(file=printed, width=120), "trained", 0, 4, 2) as reporter:
        for each in tasks:
            reporter.on_start(each)
        for _ in range(30):
            clock.now += 2
            # A step takes two seconds, after ten of start-up.
            steps |= dict.fromkeys(steps, max(0, int(clock.now - 110) // 2))
            reporter.on_poll(tasks, waiting)
    lines = printed.getvalue().splitlines()
    assert lines == [
        "a: started",
        "b: started",
        "0 of 4 trained, 0:03:50 left",
        "  a: step 10/60, 0:01:40 left",
        "  b: step 10/60, 0:01:40 left",
        "0 of 4 trained, 0:03:20 left",
        "  a: step 25/60, 0:01:10 left",
        "  b: step 25/60, 0:01:10 left",
    ]


def test_a_terminal_shows_the_losses_of_running_and_finished_runs(clock: Clock) -> None:
    printed = io.StringIO()
    console = Console(file=printed, force_terminal=True, width=120)

    def task(name: str, losses: tuple[float, ...]) -> Task:
        progress = lambda: RunProgress(3, losses=losses, best_epoch=2)  # noqa: E731
        return Task(name, [], Path("x.log"), Path("x"), progress=progress)

    plain, mine = task("plain", (5.0, 3.0, 4.0)), task("mine", (5.0, 3.0))
    with ProgressReporter(console, "trained", done=0, total=2, workers=1) as reporter:
        reporter.on_start(plain)
        reporter.on_end(plain, 0, 1.0)
        reporter.on_start(mine)
        clock.now += 5
        reporter.on_poll([mine], [])
    assert "plain  █▁█  lowest 3.0000, last 4.0000" in printed.getvalue()
    assert "mine   █▁   lowest 3.0000, last 3.0000" in printed.getvalue()


def test_time_left_is_unknown_before_steps_are_seen(clock: Clock) -> None:
    printed = io.StringIO()
    task = Task("a", [], Path("x.log"), Path("x"))
    with ProgressReporter(Console(file=printed, width=120), "trained", 0, 1, 1) as reporter:
        reporter.on_start(task)
        clock.now += 31
        reporter.on_poll([task], [])
    assert printed.getvalue().splitlines()[1:] == ["0 of 1 trained", "  a: starting"]
