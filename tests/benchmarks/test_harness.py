import json
import math
import runpy
import subprocess
import sys

import pytest
import torch

from benchmarks import harness
from benchmarks.harness import interleaved, prepare, provenance, ratio, save, summary
from tests.helpers.processes import run_forked


def test_every_round_runs_each_case_once_in_an_order_that_changes():
    calls: list[str] = []
    cases = {name: lambda name=name: calls.append(name) for name in "abc"}
    seconds = interleaved(cases, rounds=8, warmup=2)
    rounds = [calls[start : start + 3] for start in range(0, len(calls), 3)]
    assert len(rounds) == 10
    assert all(sorted(names) == ["a", "b", "c"] for names in rounds)
    assert len({tuple(names) for names in rounds}) > 1
    assert {name: len(values) for name, values in seconds.items()} == {"a": 8, "b": 8, "c": 8}
    again, calls = calls, []
    interleaved({n: lambda n=n: calls.append(n) for n in "abc"}, rounds=8, warmup=2)
    assert calls == again


def test_ratio_compares_within_rounds():
    # The machine slows down tenfold; the ratio of each round stays.
    slow, fast = [2.0, 4.0, 20.0, 40.0], [1.0, 2.0, 10.0, 20.0]
    assert ratio(slow, fast) == {"median": 2.0, "iqr": 0.0, "rounds": 4}
    with pytest.raises(ValueError, match="zip"):
        ratio(slow, fast[1:])


def test_a_single_value_has_no_spread():
    once = summary([3.0])
    assert (once["median"], once["rounds"]) == (3.0, 1)
    assert math.isnan(once["iqr"])


def test_save_names_the_source(tmp_path, capsys):
    path = save("example", {"rounds": 3}, [{"case": "a", "ms": 1.5}], tmp_path)
    record = json.loads(path.read_text())
    assert path == tmp_path / "example.json"
    assert record["settings"] == {"rounds": 3}
    assert record["rows"] == [{"case": "a", "ms": 1.5}]
    assert {"commit", "dirty", "date", "device", "threads", "versions"} <= record.keys()
    assert {"python", "torch", "lightning", "transformers"} == record["versions"].keys()
    assert "1.5" in capsys.readouterr().out


def test_lists_are_written_but_not_printed(tmp_path, capsys):
    path = save("example", {}, [{"case": "a", "losses": [8.125, 7.5]}], tmp_path)
    assert json.loads(path.read_text())["rows"][0]["losses"] == [8.125, 7.5]
    assert "8.125" not in capsys.readouterr().out


def test_a_file_that_git_does_not_know_changes_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr(harness, "ROOT", tmp_path)
    git = ["git", "-C", str(tmp_path), "-c", "user.name=a", "-c", "user.email=a@b"]
    known = tmp_path / "known.py"
    known.write_text("1")
    for command in (["init"], ["add", "."], ["commit", "-m", "first"]):
        subprocess.run([*git, *command], check=True, capture_output=True)
    (tmp_path / "unknown.txt").write_text("notes")
    assert provenance()["dirty"] is False
    known.write_text("2")
    assert provenance()["dirty"] is True


def test_help_names_the_command(monkeypatch):
    monkeypatch.setattr(sys, "argv", ["__main__.py", "--help"])
    arguments = ("benchmarks.peers", None, "__main__", True)
    shown = run_forked(runpy.run_module, *arguments, cwd=harness.ROOT)
    assert shown.returncode == 0, shown.stdout
    assert "usage: python -m benchmarks.peers " in " ".join(shown.stdout.split())
    assert "--out" in shown.stdout


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_missing_gpu_is_told():
    with pytest.raises(ValueError, match="no GPU"):
        prepare(1, "cuda")
