from pathlib import Path

import matplotlib.image
import numpy as np
import pytest
from rich.console import Console

from lit_entrodrop.report import plot_curves, summarize, table

HEADER = (
    "step,epoch,val/loss,val/loss_low_entropy,val/loss_high_entropy,train/loss,entro_drop/drop_rate"
)
PLAIN = """
0,0,4.0,2.0,6.0,,
5,0,,,,3.5,
10,0,3.0,1.0,5.0,3.1,
20,1,2.5,0.5,4.5,2.2,
30,2,2.75,0.25,5.25,1.5,
"""
DROPPED = """
0,0,4.0,2.0,6.0,,
10,0,3.0,1.25,4.75,3.3,0.0
20,1,2.5,0.75,4.25,2.6,0.2
30,2,2.25,0.5,4.0,2.4,0.4
"""


@pytest.fixture
def runs(tmp_path: Path) -> dict[str, Path]:
    folders = {"plain": tmp_path / "plain", "EntroDrop": tmp_path / "drop"}
    for folder, rows in zip(folders.values(), (PLAIN, DROPPED), strict=True):
        folder.mkdir()
        header = HEADER if rows is DROPPED else HEADER.rpartition(",")[0]
        lines = rows.strip().splitlines()
        if rows is PLAIN:
            lines = [line[:-1] for line in lines]
        (folder / "metrics.csv").write_text("\n".join([header, *lines]) + "\n")
    return folders


def test_summary(runs: dict[str, Path]) -> None:
    summary = summarize(runs)
    plain, dropped = summary.loc["plain"], summary.loc["EntroDrop"]
    assert (plain["best_epoch"], dropped["best_epoch"]) == (2, 3)
    assert (plain["val/loss best"], plain["val/loss last"]) == (2.5, 2.75)
    assert (plain["val/loss_low_entropy best"], plain["val/loss_low_entropy last"]) == (0.5, 0.25)
    assert (plain["val/loss_high_entropy best"], plain["val/loss_high_entropy last"]) == (4.5, 5.25)
    assert dropped["val/loss best"] == dropped["val/loss last"] == 2.25
    assert np.isnan(plain["drop_rate"])
    assert dropped["drop_rate"] == pytest.approx(0.2)


def test_run_that_only_got_worse_was_best_before_training(tmp_path: Path) -> None:
    (tmp_path / "metrics.csv").write_text("step,epoch,val/loss\n0,0,1.0\n10,0,2.0\n")
    assert summarize({"bad": tmp_path}).loc["bad", "best_epoch"] == 0


def test_table_shows_the_numbers(runs: dict[str, Path]) -> None:
    console = Console(width=160, record=True, file=open("/dev/null", "w"))  # noqa: SIM115
    console.print(table(summarize(runs)))
    text = console.export_text()
    [plain] = [line for line in text.splitlines() if " plain " in line]
    [dropped] = [line for line in text.splitlines() if " EntroDrop " in line]
    assert [cell.strip() for cell in plain.strip("│ ").split("│")][2:] == [
        "2.500 / 2.750",
        "0.500 / 0.250",
        "4.500 / 5.250",
        "–",
    ]
    assert "20.0%" in dropped


@pytest.mark.parametrize("suffix", ["png", "svg"])
def test_picture_is_written(runs: dict[str, Path], tmp_path: Path, suffix: str) -> None:
    path = plot_curves(runs, tmp_path / f"curves.{suffix}", "Two runs")
    if suffix == "png":
        pixels = matplotlib.image.imread(path)
        assert pixels.shape[1] > 1000
        assert len(np.unique(pixels.reshape(-1, pixels.shape[2]), axis=0)) > 20
    else:
        assert "#d1495b" in path.read_text()
