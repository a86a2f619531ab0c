from dataclasses import replace
from pathlib import Path

import pytest

from lit_entrodrop.commands.compare.running.run_progress import RunProgress, read_progress
from lit_entrodrop.runs.evaluations import SHARED, evaluation_path, write_run_info
from tests.lit_entrodrop.commands.compare.measuring.test_measures import evaluation, write_run


def test_progress_is_read_from_the_files_of_a_run(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "run")
    expected = RunProgress(30, None, epoch=3, train_loss=4.0, losses=(4.0, 3.5, 3.9), best_epoch=2)
    assert read_progress(folder) == expected
    write_run_info(folder, {**dict.fromkeys(SHARED), "total_steps": 40})
    assert read_progress(folder) == replace(expected, total_steps=40)
    assert str(read_progress(folder)) == (
        "epoch 3, step 30/40, training loss 4.000, best validation loss 3.5000 (epoch 2)"
    )


def test_best_epoch_may_be_a_part(tmp_path: Path) -> None:
    rows = ["step,epoch,val/loss", "0,,3", "4,0,2.5", "8,0,2", "12,0,2.1", "16,1,2.2"]
    (tmp_path / "metrics.csv").write_text("\n".join([*rows, ""]))
    assert str(read_progress(tmp_path)).endswith("best validation loss 2.0000 (epoch 0.667)")
    replace(evaluation(8, 1.0), epoch=0.5).save(evaluation_path(tmp_path, 8))
    assert str(read_progress(tmp_path)).endswith("(epoch 0.5)")
    evaluation_path(tmp_path, 8).write_bytes(b"PK torn")
    assert str(read_progress(tmp_path)).endswith("(epoch 0.667)")


@pytest.mark.parametrize("content", ["", "step,epoch,val/loss\n", "what\n1\n"])
def test_metrics_that_cannot_be_read_are_no_progress(tmp_path: Path, content: str) -> None:
    assert read_progress(tmp_path) is None
    (tmp_path / "metrics.csv").write_text(content)
    assert read_progress(tmp_path) is None


def test_run_that_has_not_validated_has_steps(tmp_path: Path) -> None:
    (tmp_path / "metrics.csv").write_text("step,epoch,train/loss\n10,0,3.5\n")
    assert str(read_progress(tmp_path)) == "epoch 1, step 10, training loss 3.500"
