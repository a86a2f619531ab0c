"""Table of several runs."""

import re
from pathlib import Path

import numpy as np
import pytest

from lit_entrodrop.commands.report import write_report
from lit_entrodrop.commands.report.records.run_record import read_run

PLAIN = """step,epoch,val/loss,train/loss
0,0,4.0,
5,0,,3.5
10,0,3.0,3.1
20,1,2.5,2.2
30,2,2.75,1.5
"""
DROPPED = """step,epoch,val/loss,train/loss,entro_drop/drop_rate
0,0,4.0,,
10,0,3.0,3.3,0.0
20,1,2.5,2.6,0.2
30,2,2.25,2.4,0.4
"""


@pytest.fixture
def runs(tmp_path: Path) -> dict[str, Path]:
    folders = {"plain": tmp_path / "plain", "EntroDrop": tmp_path / "drop"}
    for folder, rows in zip(folders.values(), (PLAIN, DROPPED), strict=True):
        folder.mkdir()
        (folder / "metrics.csv").write_text(rows)
    return folders


def test_drop_rate_is_the_mean_over_training(runs: dict[str, Path]) -> None:
    assert np.isnan(read_run("plain", runs["plain"]).drop_rate)
    assert read_run("EntroDrop", runs["EntroDrop"]).drop_rate == pytest.approx(0.2)


def test_table_of_runs(runs: dict[str, Path], tmp_path: Path) -> None:
    new = tmp_path / "new"
    new.mkdir()
    (new / "metrics.csv").write_text("step,epoch,val/loss\n0,0,1.0\n")
    page = write_report(tmp_path / "page", {**runs, "new": new}).read_text()
    row = r'<th scope="row">([^<]*)</th><td class="n" data-label="best epoch">(.*)'
    rows = {name: re.findall(r">([^<>]+)</td>", f">{rest}") for name, rest in re.findall(row, page)}
    assert rows == {
        "plain": ["2", "2.500", "2.750", "–"],
        "EntroDrop": ["3", "2.250", "2.250", "20.0%"],
        "new": ["–", "–", "1.000", "–"],
    }


def test_untrained_model_is_never_the_best(tmp_path: Path) -> None:
    (tmp_path / "metrics.csv").write_text("step,epoch,val/loss\n0,0,1.0\n10,0,2.0\n20,1,3.0\n")
    assert read_run("bad", tmp_path).trained_loss().to_dict() == {1: 2, 2: 3}
    (tmp_path / "metrics.csv").write_text("step,epoch,val/loss\n0,0,1.0\n")
    assert read_run("new", tmp_path).trained_loss().empty


def test_evaluations_within_an_epoch_are_parts_of_a_pass(tmp_path: Path) -> None:
    rows = ["0,,3.0", "4,0,2.5", "8,0,2.0", "12,0,2.1", "16,1,2.2"]
    (tmp_path / "metrics.csv").write_text("\n".join(["step,epoch,val/loss", *rows, ""]))
    assert read_run("run", tmp_path).trained_loss().idxmin() == pytest.approx(2 / 3)


def test_folder_without_a_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"expected metrics\.csv in .* found none"):
        read_run("none", tmp_path)
