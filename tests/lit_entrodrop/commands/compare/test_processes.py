"""Commands side by side: small programs, started as runs are."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import IO

import pytest

from lit_entrodrop.commands.compare.processes import Job, Watcher, Workers, run_jobs, told
from lit_entrodrop.commands.compare.run_state import lock
from tests.helpers.processes import fork

CODE = "import json, os, sys, time; start = time.time(); {}"
NOTE = (
    "time.sleep(0.3); names = ('CUDA_VISIBLE_DEVICES', 'OMP_NUM_THREADS'); "
    "seen = {n: os.environ.get(n) for n in names}; "
    "json.dump({**seen, 'start': start, 'end': time.time()}, open(sys.argv[1], 'w'))"
)
FAIL = "print('what went wrong'); sys.exit(3)"
# Keeps a checkpoint when it is told to end.
PATIENT = (
    "import signal; signal.signal(signal.SIGTERM, lambda *_: "
    "(open(sys.argv[1], 'w').write('kept'), os._exit(0))); "
    "open(sys.argv[1] + '.started', 'w').close(); time.sleep(60)"
)


def start(job: Job, held: IO[str], environment: dict[str, str]) -> subprocess.Popen[bytes]:
    code, *arguments = job.arguments
    with job.log.open("a") as log:
        return subprocess.Popen(
            [sys.executable, "-S", "-c", CODE.format(code), *arguments],
            stdout=log,
            env=environment,
            pass_fds=[held.fileno()],
            start_new_session=True,
        )


def job(
    folder: Path,
    name: str,
    code: str = NOTE,
    on_success: Callable[[], None] = lambda: None,
    place: str | None = None,
) -> Job:
    place = name if place is None else place
    return Job(
        name,
        [code, str(folder / name)],
        folder / f"{name}.log",
        folder / place,
        acquire=lambda: lock(folder / f"{place}.lock"),
        on_success=on_success,
    )


class Noting(Watcher):
    def __init__(self) -> None:
        self.noted: list[str] = []

    def on_start(self, job: Job) -> None:
        self.noted.append(f"start {job.title}")

    def on_wait(self, job: Job) -> None:
        self.noted.append(f"wait {job.title}")

    def on_end(self, job: Job, status: int, seconds: float) -> None:
        self.noted.append(f"end {job.title} {status}")


def test_jobs_share_devices(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OMP_NUM_THREADS")
    done: list[str] = []
    jobs = [job(tmp_path, str(i), on_success=lambda: done.append("")) for i in range(3)]
    assert run_jobs(jobs, Workers(2, ("0", "3"), start), Watcher()) == []
    seen = [json.loads((tmp_path / str(i)).read_text()) for i in range(3)]
    assert {each["CUDA_VISIBLE_DEVICES"] for each in seen[:2]} == {"0", "3"}
    assert int(seen[0]["OMP_NUM_THREADS"]) == max(1, (os.cpu_count() or 1) // 2)
    assert seen[2]["start"] > min(each["end"] for each in seen[:2])
    assert len(done) == 3


def test_others_go_on_where_one_fails(tmp_path: Path) -> None:
    watcher = Noting()
    jobs = [job(tmp_path, "bad", FAIL), job(tmp_path, "good")]
    assert run_jobs(jobs, Workers(start=start), watcher) == [jobs[0]]
    assert watcher.noted == ["start bad", "end bad 3", "start good", "end good 0"]
    assert told(jobs[0].log) == "what went wrong"
    assert told(tmp_path / "none.log") == ""


def test_run_of_another_process_is_waited_for(tmp_path: Path) -> None:
    """As one that a killed comparison has left, which holds the lock for as long as it runs."""
    held = lock(tmp_path / "taken.lock")
    assert held is not None
    with held:
        other = subprocess.Popen(
            [sys.executable, "-S", "-c", "import time; time.sleep(1)"], pass_fds=[held.fileno()]
        )
    watcher = Noting()
    jobs = [job(tmp_path, "taken"), job(tmp_path, "free")]
    run_jobs(jobs, Workers(start=start), watcher)
    assert other.wait() == 0
    assert watcher.noted[:2] == ["wait taken", "start free"]
    assert watcher.noted[-2:] == ["start taken", "end taken 0"]


def test_jobs_of_one_folder_follow_each_other_silently(tmp_path: Path) -> None:
    watcher = Noting()
    jobs = [job(tmp_path, name, place="run") for name in ("best", "last")]
    assert run_jobs(jobs, Workers(2, start=start), watcher) == []
    assert watcher.noted == ["start best", "end best 0", "start last", "end last 0"]


@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGINT])
def test_what_runs_is_told_to_end(tmp_path: Path, signum: signal.Signals) -> None:
    process = fork(_run_patient, tmp_path)
    _wait_for(tmp_path / "run.started")
    assert process.pid is not None
    os.kill(process.pid, signum)
    process.join(30)
    assert (tmp_path / "run").read_text() == "kept"
    assert (tmp_path / "interrupted").exists()
    assert lock(tmp_path / "run.lock") is not None


def _run_patient(folder: Path) -> None:
    # A shell that runs tests in the background lets them ignore it.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        run_jobs([job(folder, "run", PATIENT)], Workers(start=start), Watcher())
    except KeyboardInterrupt:
        (folder / "interrupted").touch()


def _wait_for(path: Path) -> None:
    deadline = time.monotonic() + 30
    while not path.exists():
        assert time.monotonic() < deadline
        time.sleep(0.02)
