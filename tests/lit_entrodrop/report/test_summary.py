from pathlib import Path

import numpy as np
import pytest

from lit_entrodrop.report.summary import summarize

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


def test_run_that_only_got_worse_was_best_before_training(tmp_path: Path) -> None:
    (tmp_path / "metrics.csv").write_text("step,epoch,val/loss\n0,0,1.0\n10,0,2.0\n")
    assert summarize({"bad": tmp_path}).loc["bad", "best_epoch"] == 0


def test_folder_without_a_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"expected metrics\.csv in .* found none"):
        summarize({"none": tmp_path})
