"""Pool of processes, with small programs in place of runs."""

import json
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from multiprocessing.process import BaseProcess
from pathlib import Path

import pytest

from lit_entrodrop.commands.compare.running import process_pool
from lit_entrodrop.commands.compare.running.process_pool import (
    Task,
    TaskObserver,
    Workers,
    last_lines,
    run_tasks,
    stop,
)
from lit_entrodrop.runs.locking import lock
from tests.helpers.processes import fork, python

NOTE = (
    "import json, os, sys, time; start = time.time(); time.sleep(0.3); "
    "names = ('CUDA_VISIBLE_DEVICES', 'OMP_NUM_THREADS'); "
    "seen = {n: os.environ.get(n) for n in names}; "
    "json.dump({**seen, 'start': start, 'end': time.time()}, open(sys.argv[1], 'w'))"
)
FAIL = "import sys; print('what went wrong'); sys.exit(3)"
# Saves a checkpoint when it is asked to end.
PATIENT = (
    "import os, signal, sys, time; signal.signal(signal.SIGTERM, lambda *_: "
    "(open(sys.argv[1], 'w').write('kept'), os._exit(0))); "
    "open(sys.argv[1] + '.started', 'w').close(); time.sleep(60)"
)


def start(task: Task, environment: dict[str, str]) -> BaseProcess:
    return fork(_run, task, environment)


def _run(task: Task, environment: dict[str, str]) -> None:
    os.setsid()
    locked = lock(task.lock)
    assert locked is not None
    os.environ.update(environment)
    code, *sys.argv[1:] = task.arguments
    with task.log.open("a", buffering=1) as sys.stdout:
        exec(code, {})


def task(
    folder: Path,
    name: str,
    code: str = NOTE,
    on_success: Callable[[], None] = lambda: None,
    place: str | None = None,
) -> Task:
    return Task(
        name,
        [code, str(folder / name)],
        folder / f"{name}.log",
        folder / f"{place or name}.lock",
        on_success=on_success,
    )


class Noting(TaskObserver):
    def __init__(self) -> None:
        self.noted: list[str] = []

    def on_start(self, task: Task) -> None:
        self.noted.append(f"start {task.title}")

    def on_wait(self, task: Task) -> None:
        self.noted.append(f"wait {task.title}")

    def on_end(self, task: Task, status: int, seconds: float) -> None:
        self.noted.append(f"end {task.title} {status}")


def test_tasks_share_devices(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OMP_NUM_THREADS")
    done: list[str] = []
    tasks = [task(tmp_path, str(i), on_success=lambda: done.append("")) for i in range(3)]
    assert run_tasks(tasks, Workers(2, ("0", "3"), start), TaskObserver()) == []
    seen = [json.loads((tmp_path / str(i)).read_text()) for i in range(3)]
    assert {each["CUDA_VISIBLE_DEVICES"] for each in seen[:2]} == {"0", "3"}
    assert int(seen[0]["OMP_NUM_THREADS"]) == max(1, (os.cpu_count() or 1) // 2)
    assert seen[2]["start"] > min(each["end"] for each in seen[:2])
    assert len(done) == 3


def test_others_continue_after_a_failure(tmp_path: Path) -> None:
    observer = Noting()
    tasks = [task(tmp_path, "bad", FAIL), task(tmp_path, "good")]
    assert run_tasks(tasks, Workers(start=start), observer) == [tasks[0]]
    assert observer.noted == ["start bad", "end bad 3", "start good", "end good 0"]
    assert last_lines(tasks[0].log) == "what went wrong"
    assert last_lines(tmp_path / "none.log") == ""


def test_lock_of_another_process_is_waited_for(tmp_path: Path) -> None:
    """As one that a killed comparison has left, which holds the lock for as long as it runs."""
    other = fork(_lock_for_a_second, tmp_path / "taken.lock")
    _wait_for(tmp_path / "taken.lock")
    observer = Noting()
    tasks = [task(tmp_path, "taken"), task(tmp_path, "free")]
    run_tasks(tasks, Workers(start=start), observer)
    other.join(30)
    assert other.exitcode == 0
    assert observer.noted[:2] == ["wait taken", "start free"]
    assert observer.noted[-2:] == ["start taken", "end taken 0"]


def test_tasks_with_one_lock_follow_each_other(tmp_path: Path) -> None:
    observer = Noting()
    tasks = [task(tmp_path, name, place="run") for name in ("best", "last")]
    assert run_tasks(tasks, Workers(2, start=start), observer) == []
    assert observer.noted == ["start best", "end best 0", "start last", "end last 0"]


@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGINT])
def test_running_tasks_are_asked_to_end(tmp_path: Path, signum: signal.Signals) -> None:
    process = fork(_run_patient, tmp_path)
    _wait_for(tmp_path / "run.started")
    assert process.pid is not None
    os.kill(process.pid, signum)
    process.join(30)
    assert (tmp_path / "run").read_text() == "kept"
    assert (tmp_path / "interrupted").exists()
    assert lock(tmp_path / "run.lock") is not None


def test_signal_while_a_task_starts_ends_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(process_pool, "GRACE_SECONDS", 1.0)
    started: list[BaseProcess] = []

    def start_late(task: Task, environment: dict[str, str]) -> BaseProcess:
        process = start(task, environment)
        signal.raise_signal(signal.SIGTERM)
        started.append(process)
        return process

    tasks = [task(tmp_path, name, "import time; time.sleep(60)") for name in ("one", "two")]
    with pytest.raises(KeyboardInterrupt):
        run_tasks(tasks, Workers(start=start_late), TaskObserver())
    assert [process.exitcode is not None for process in started] == [True]


def test_second_signal_ends_tasks_at_once(tmp_path: Path) -> None:
    # A shell lets the jobs that it starts in the background ignore this signal.
    earlier = signal.signal(signal.SIGINT, signal.default_int_handler)

    def start_and_stop(task: Task, environment: dict[str, str]) -> BaseProcess:
        process = start(task, environment)
        _wait_for(tmp_path / "run.started")
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGINT)
        return process

    stubborn = PATIENT.replace("os._exit(0)", "time.sleep(60)")
    tasks = [task(tmp_path, "run", stubborn)]
    begun = time.monotonic()
    try:
        with pytest.raises(KeyboardInterrupt):
            run_tasks(tasks, Workers(start=start_and_stop), TaskObserver())
    finally:
        signal.signal(signal.SIGINT, earlier)
    assert time.monotonic() - begun < process_pool.GRACE_SECONDS / 2


def test_ignored_hangup_does_not_stop_tasks(tmp_path: Path) -> None:
    """As under `nohup`."""
    earlier = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        tasks = [task(tmp_path, "run", on_success=lambda: signal.raise_signal(signal.SIGHUP))]
        assert run_tasks(tasks, Workers(start=start), TaskObserver()) == []
    finally:
        signal.signal(signal.SIGHUP, earlier)


def _run_patient(folder: Path) -> None:
    # A shell that runs tests in the background lets them ignore it.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        run_tasks([task(folder, "run", PATIENT)], Workers(start=start), TaskObserver())
    except KeyboardInterrupt:
        (folder / "interrupted").touch()


def _lock_for_a_second(path: Path) -> None:
    locked = lock(path)
    assert locked is not None
    time.sleep(1)


def _wait_for(path: Path) -> None:
    deadline = time.monotonic() + 30
    while not path.exists():
        assert time.monotonic() < deadline
        time.sleep(0.02)


# A user's script need not protect its code by `if __name__ == "__main__"`.
SCRIPT = r"""
import multiprocessing, re, signal, sys
from pathlib import Path
from lit_entrodrop.commands.compare.running.process_pool import (
    STOP_SIGNALS, Task, TaskObserver, Workers, run_tasks
)

with open("script.log", "a") as file:
    print("script", file=file)
good = Task("good", ["--version"], Path("a/good.log"), Path("a/lock"))
bad = Task("bad", ["nonsense"], Path("b/bad.log"), Path("b/lock"))
print([task.title for task in run_tasks([good, bad], Workers(2), TaskObserver())])
print(Path(sys.modules["__main__"].__file__).name)
print(signal.pthread_sigmask(signal.SIG_BLOCK, []))
server = multiprocessing.forkserver._forkserver._forkserver_pid
[mask] = re.findall(r"SigBlk:\s*(\w+)", Path(f"/proc/{server}/status").read_text())
print(*(int(mask, 16) >> signum - 1 & 1 for signum in STOP_SIGNALS))
"""


def test_program_is_run_by_a_fork_server(tmp_path: Path) -> None:
    (tmp_path / "script.py").write_text(SCRIPT)
    ended = python("script.py", cwd=tmp_path)
    assert ended.stdout.splitlines() == [
        "['bad']",
        "script.py",
        "set()",
        "1 1 1",
    ], ended.stderr
    assert (tmp_path / "script.log").read_text() == "script\n"
    assert last_lines(tmp_path / "a" / "good.log").startswith("lit-entrodrop ")
    assert "nonsense" in last_lines(tmp_path / "b" / "bad.log")


FORK_SERVER = """
import multiprocessing, os, signal, threading
from pathlib import Path

import torch
def fail(*_, **__):
    raise AssertionError("CUDA is touched before the fork")
for name in ("is_available", "device_count", "init", "_lazy_init"):
    setattr(torch.cuda, name, fail)

import lit_entrodrop.commands.compare.running.fork_server
from lit_entrodrop.commands.compare.running.child import run_command
print(threading.active_count())

def child():
    os.kill(os.getpid(), signal.SIGTERM)
    run_command(["--version"], Path("log"), Path("lock"), {})
process = multiprocessing.get_context("fork").Process(target=child)
process.start()
process.join()
print(process.exitcode)
"""


def test_fork_server_leaves_cuda_threads_and_the_signals_of_a_child_alone(tmp_path: Path) -> None:
    """A signal that arrives before a child is ready is delivered."""
    ended = python("-c", FORK_SERVER, cwd=tmp_path)
    assert ended.stdout.split() == ["1", "-15"], ended.stderr


class Stopping(Noting):
    """Stops the task `endless` when it runs."""

    def on_poll(self, running: Sequence[Task], waiting: Sequence[Task]) -> None:
        for each in running:
            if each.title == "endless" and Path(f"{each.arguments[1]}.started").exists():
                stop(each)


def test_tasks_are_requested_as_workers_get_free_and_can_be_stopped(tmp_path: Path) -> None:
    observer = Stopping()
    requested: list[list[str]] = []

    def more() -> Iterator[Task]:
        for name, code in (("endless", PATIENT), ("next", FAIL)):
            requested.append(list(observer.noted))
            yield task(tmp_path, name, code)

    failed = run_tasks([], Workers(start=start), observer, more())
    assert requested[0] == []
    assert any(each.startswith("end endless") for each in requested[1])
    # Without time to save anything.
    assert not (tmp_path / "endless").exists()
    assert [each.title for each in failed] == ["next"]
