from pathlib import Path

import numpy as np
import pytest

from lit_entrodrop.commands.report.summary import summarize

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


def test_summary(runs: dict[str, Path]) -> None:
    summary = summarize(runs)
    plain, dropped = summary.loc["plain"], summary.loc["EntroDrop"]
    assert (plain["best_epoch"], dropped["best_epoch"]) == (2, 3)
    assert (plain["val/loss best"], plain["val/loss last"]) == (2.5, 2.75)
    assert dropped["val/loss best"] == dropped["val/loss last"] == 2.25
    assert np.isnan(plain["drop_rate"])
    assert dropped["drop_rate"] == pytest.approx(0.2)


def test_untrained_model_is_never_the_best(tmp_path: Path) -> None:
    (tmp_path / "metrics.csv").write_text("step,epoch,val/loss\n0,0,1.0\n10,0,2.0\n20,1,3.0\n")
    bad = summarize({"bad": tmp_path}).loc["bad"]
    assert (bad["best_epoch"], bad["val/loss best"], bad["val/loss last"]) == (1, 2, 3)
    (tmp_path / "metrics.csv").write_text("step,epoch,val/loss\n0,0,1.0\n")
    new = summarize({"new": tmp_path}).loc["new"]
    assert np.isnan(new["best_epoch"])
    assert np.isnan(new["val/loss best"])


def test_evaluations_within_an_epoch_are_parts_of_a_pass(tmp_path: Path) -> None:
    rows = ["0,,3.0", "4,0,2.5", "8,0,2.0", "12,0,2.1", "16,1,2.2"]
    (tmp_path / "metrics.csv").write_text("\n".join(["step,epoch,val/loss", *rows, ""]))
    assert summarize({"run": tmp_path}).loc["run", "best_epoch"] == pytest.approx(2 / 3)


def test_folder_without_a_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"expected metrics\.csv in .* found none"):
        summarize({"none": tmp_path})
