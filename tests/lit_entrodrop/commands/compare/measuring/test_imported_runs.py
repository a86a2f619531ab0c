"""Runs that are written to ``comparison.json`` and read again."""

import json
import re
from pathlib import Path
from typing import Any

import pytest

from lit_entrodrop.commands.compare.finished_runs import FinishedRuns
from lit_entrodrop.commands.compare.measuring.imported_runs import read_imported, run_entry
from lit_entrodrop.commands.compare.measuring.measures import SCORE, RunResult
from lit_entrodrop.commands.compare.planning.config_differences import digest
from lit_entrodrop.commands.compare.planning.planned_run import PlannedRun

ORIGIN = {"lit-entrodrop": "0.1.0", "torch": "2.13.0", "device": "x86_64"}
EMPTY: dict[str, Any] = {"schema": 2, "arms": {}, "contrasts": [], "runs": []}


def planned(folder: Path, seed: int = 0) -> PlannedRun:
    config = {"seed_everything": seed, "data": {"test": 0.1}, "ckpt_path": str(folder)}
    return PlannedRun("plain", {"x": 0.1}, seed, folder / f"seed={seed}", config)


def result(loss: float) -> RunResult:
    values = {SCORE: loss, "best/loss": loss, "best/loss_low_entropy": 1 / 3}
    return RunResult(
        None, values, {}, 30, averaged=True, fingerprints={"train": "a"}, origin=ORIGIN
    )


def write(path: Path, *entries: dict[str, Any]) -> Path:
    path.write_text(json.dumps({**EMPTY, "runs": entries}))
    return path


def test_runs_are_read_as_they_were_written(tmp_path: Path) -> None:
    results = {"validation": result(3.1), "test": result(3.2)}
    run, elsewhere = planned(tmp_path / "here"), planned(tmp_path / "there")
    untested = run_entry(run, {"validation": result(3.1)}, None)
    files = [
        write(tmp_path / "a.json", untested),
        write(tmp_path / "b.json", run_entry(run, results, None)),
    ]
    found = read_imported(files)[digest(elsewhere.config)]
    assert found.results == results
    assert found.file == "b.json"
    assert digest(planned(tmp_path, seed=1).config) not in read_imported(files)


def test_imported_runs_lack_losses_of_documents_and_of_splits_not_evaluated(tmp_path: Path) -> None:
    run, other = planned(tmp_path), planned(tmp_path, seed=1)
    untested = run_entry(other, {"validation": result(3.1)}, None)
    tested = run_entry(run, {"validation": result(3.1), "test": result(3.2)}, None)
    finished = FinishedRuns(read_imported([write(tmp_path / "a.json", tested, untested)]))
    assert finished.local([run, other, planned(tmp_path, seed=2)]) == [planned(tmp_path, seed=2)]
    assert finished.incomplete([run, other], documents=False) == [other]
    assert finished.incomplete([run, other], documents=True) == [run, other]
    assert finished.notes([run, planned(tmp_path, seed=2)]) == [
        "1 of 2 runs were not trained here but imported from a.json, with their times per step."
    ]


def test_runs_that_contradict_each_other_are_counted(tmp_path: Path) -> None:
    run = planned(tmp_path)
    files = [
        write(tmp_path / f"{name}.json", run_entry(run, {"validation": result(loss)}, None))
        for name, loss in (("a", 3.1), ("b", 3.1), ("c", 3.2))
    ]
    agreeing, all_files = FinishedRuns(read_imported(files[:2])), FinishedRuns(read_imported(files))
    assert len(agreeing.notes([run])) == 1
    assert all_files.measure(run).values["best/loss"] == 3.1
    assert all_files.notes([run])[1] == (
        "1 imported runs have different losses in a.json and c.json: the first file with test "
        "losses counts."
    )


@pytest.mark.parametrize("wrong", [{"best/loss": float("nan")}, {"best/loss": None}, {}])
def test_run_without_a_finite_loss_is_an_error(tmp_path: Path, wrong: dict[str, Any]) -> None:
    entry = run_entry(planned(tmp_path), {"validation": result(3.1)}, None)
    path = write(tmp_path / "a.json", {**entry, "validation": {SCORE: 3.1, **wrong}})
    with pytest.raises(ValueError, match="import: expected the runs of a comparison in"):
        read_imported([path])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"schema": 2, "arms"', "import: expected a whole comparison.json, got"),
        ("[]", "import: expected the results of `compare`, got"),
        ('{"schema": 2, "status": "ok"}', "import: expected the results of `compare`, got"),
        (json.dumps({**EMPTY, "schema": 1}), "import: expected schema 2, got 1 in"),
        (json.dumps({**EMPTY, "runs": None}), "import: expected the runs of a comparison in"),
        (json.dumps({**EMPTY, "runs": [{"digest": "a"}]}), "something else (KeyError: 'validation"),
    ],
)
def test_file_without_runs_is_an_error(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "comparison.json"
    path.write_text(text)
    with pytest.raises(ValueError, match=re.escape(message)):
        read_imported([path])


def test_missing_file_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="import: expected a file, found no"):
        read_imported([tmp_path / "no.json"])
