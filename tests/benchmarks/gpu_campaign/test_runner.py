import json
import multiprocessing
import os
import signal
import time
from pathlib import Path

import pytest

from benchmarks.gpu_campaign import worker
from benchmarks.gpu_campaign.cases import Case, Step
from benchmarks.gpu_campaign.rows import RowFile
from benchmarks.gpu_campaign.runner import NOT_RUN, Runner
from tests.benchmarks.gpu_campaign import measures


def run(folder: Path, steps: list[Step], seconds: float = 200.0) -> None:
    rows = RowFile(folder / "rows.jsonl", {"device": "none"})
    Runner(rows, seconds, folder / "logs", shortest_limit=0.5).run(steps)


def rows_in(folder: Path) -> list[dict]:
    return [json.loads(line) for line in (folder / "rows.jsonl").read_text().splitlines()]


def statuses(folder: Path) -> list[tuple[str, str]]:
    return [(row["case"], row["status"]) for row in rows_in(folder)]


@pytest.mark.parametrize("parallel", [1, 3])
def test_no_case_stops_the_others(tmp_path: Path, parallel: int) -> None:
    # A hanging case has a second, the others a minute.
    cases = [
        Case(name, getattr(measures, name), expected=0.3 if name == "hangs" else 20.0)
        for name in ("works", "fails", "hangs", "lacks", "crashes")
    ]
    last = Step("b", [Case("works again", measures.works)], share=1)
    run(tmp_path, [Step("a", cases, share=1, parallel=parallel), last])
    found = statuses(tmp_path)
    assert found[-1] == ("works again", "ok")
    assert sorted(found[:-1]) == [
        ("crashes", "crashed"),
        ("fails", "failed"),
        ("fails", "ok"),
        ("hangs", "timed out"),
        ("lacks", "ok"),
        ("lacks", "skipped"),
        ("works", "ok"),
    ]
    row = {(each["case"], each["status"]): each for each in rows_in(tmp_path)}
    assert row["fails", "failed"]["error"] == "ValueError: no such thing"
    assert row["lacks", "skipped"]["reason"] == "needs a GPU"
    assert "about to crash" in row["crashes", "crashed"]["error"]
    assert "status -9" in row["crashes", "crashed"]["error"]
    assert "about to hang" in row["hangs", "timed out"]["error"]
    assert row["hangs", "timed out"]["seconds"] == pytest.approx(0.9)
    assert all(each["device"] == "none" and each["step"] in "ab" for each in row.values())


def test_what_does_not_fit_is_listed(tmp_path: Path) -> None:
    # The first step may take two seconds; what it leaves runs after the second step, if it fits.
    first = Step(
        "a",
        [
            Case("too long", measures.works, expected=1000.0),
            Case("later", measures.works, expected=30.0),
        ],
        share=1,
    )
    second = Step("b", [Case("in time", measures.works, expected=10.0)], share=99)
    run(tmp_path, [first, second])
    assert statuses(tmp_path) == [("in time", "ok"), ("later", "ok"), ("too long", NOT_RUN)]


def test_a_needed_step_runs_past_its_share(tmp_path: Path) -> None:
    data = Step("a", [Case("data", measures.works, expected=20.0)], share=1, is_needed=True)
    user = Step("b", [Case("user", measures.works, expected=10.0)], share=99)
    run(tmp_path, [data, user])
    assert statuses(tmp_path) == [("data", "ok"), ("user", "ok")]


def test_a_killed_campaign_leaves_its_rows_and_no_process(tmp_path: Path, monkeypatch) -> None:
    pid_file = tmp_path / "pid"
    cases = [
        Case("works", measures.works),
        Case("hangs", measures.hangs, {"pid_file": pid_file}, expected=60.0),
    ]
    # Importing PyTorch in new processes takes longer than the test.
    monkeypatch.setattr(worker, "START_METHOD", "fork")
    campaign = multiprocessing.get_context("fork").Process(
        target=run, args=(tmp_path, [Step("a", cases, share=1)])
    )
    campaign.start()
    wait_until(lambda: pid_file.exists() and pid_file.read_text() != "")
    assert campaign.pid is not None
    os.kill(campaign.pid, signal.SIGKILL)
    campaign.join()
    assert statuses(tmp_path) == [("works", "ok")]
    wait_until(lambda: not is_running(int(pid_file.read_text())))


def wait_until(condition) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def is_running(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z"
