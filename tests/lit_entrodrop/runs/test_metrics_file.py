from pathlib import Path

import pytest

from lit_entrodrop.runs.metrics_file import MetricsFile, read_metrics
from lit_entrodrop.runs.writing import WriteError
from tests.helpers.full_disk import files_of_at_most


def log(folder: Path, rows: dict[int, dict[str, float]]) -> None:
    """Log as one process does, from its start to its end."""
    logger = MetricsFile(folder)
    for step, row in rows.items():
        logger.log_metrics(row, step)
        logger.save()
    logger.finalize("success")


def test_one_row_a_step(tmp_path: Path) -> None:
    log(tmp_path, {0: {"val/loss": 3.0}, 5: {"train/loss": 2.5, "epoch": 0}})
    frame = read_metrics(tmp_path)
    assert frame.index.tolist() == [0, 5]
    assert frame["val/loss"].dropna().to_dict() == {0: 3.0}
    assert frame["train/loss"].dropna().to_dict() == {5: 2.5}


def test_full_disk_is_named(tmp_path: Path) -> None:
    logger = MetricsFile(tmp_path)
    logger.log_metrics({"loss": 3.0}, 0)
    named = rf"{tmp_path}/metrics\.csv: could not be written \(File too large\): .* MB free"
    with files_of_at_most(20), pytest.raises(WriteError, match=named):
        logger.log_metrics({"loss": 2.123456789}, 5)


def test_evaluation_and_training_of_one_step_share_a_row(tmp_path: Path) -> None:
    logger = MetricsFile(tmp_path)
    logger.log_metrics({"train/loss": 2.5}, 5)
    logger.log_metrics({"val/loss": 3.0}, 5)
    logger.save()
    frame = read_metrics(tmp_path)
    assert frame.loc[5].to_dict() == {"train/loss": 2.5, "val/loss": 3.0}


def test_resumed_run_continues_the_file(tmp_path: Path) -> None:
    killed = MetricsFile(tmp_path)
    killed.log_metrics({"train/loss": 3.0}, 1)
    killed.log_metrics({"train/loss": 2.0}, 2)
    kept = list(killed.rows)
    killed.log_metrics({"train/loss": 9.0}, 3)
    resumed = MetricsFile(tmp_path)
    resumed.restore(kept)
    # It logs a metric that the first one had not.
    resumed.log_metrics({"train/loss": 1.5, "val/loss": 1.0}, 3)
    resumed.log_metrics({"train/loss": 1.25}, 4)
    frame = read_metrics(tmp_path)
    assert frame["train/loss"].to_dict() == {1: 3.0, 2: 2.0, 3: 1.5, 4: 1.25}
    assert frame["val/loss"].dropna().to_dict() == {3: 1.0}


def test_process_that_logs_nothing_leaves_the_file(tmp_path: Path) -> None:
    log(tmp_path, {1: {"train/loss": 3.0}})
    MetricsFile(tmp_path)
    assert len(read_metrics(tmp_path)) == 1


def test_metrics_lie_in_the_folder_itself(tmp_path: Path) -> None:
    log(tmp_path / "run", {1: {"train/loss": 3.0}})
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["metrics.csv"]


def test_folder_without_metrics_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"expected metrics\.csv in .*use a run folder"):
        read_metrics(tmp_path)
