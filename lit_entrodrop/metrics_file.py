"""The file in which a run keeps its metrics."""

import csv
import warnings
from pathlib import Path
from typing import Any

import pandas as pd
from lightning.fabric.loggers.logger import rank_zero_experiment
from lightning.pytorch.loggers import CSVLogger

FILE_NAME = "metrics.csv"


class MetricsFile(CSVLogger):
    """Log to ``metrics.csv`` in the run's folder; a resumed run continues the file.

    Args:
        folder: the run's folder.
    """

    def __init__(self, folder: str | Path) -> None:
        super().__init__(folder, name="", version="", flush_logs_every_n_steps=1)
        self._earlier = _read_rows(Path(folder) / FILE_NAME)

    @property
    @rank_zero_experiment
    def experiment(self) -> Any:
        """The writer, which starts with the rows of the run that is resumed."""
        with warnings.catch_warnings():
            # Earlier rows are written again, so nothing is deleted.
            warnings.filterwarnings("ignore", message="Experiment logs directory")
            writer = super().experiment
        writer.metrics[:0], self._earlier = self._earlier, []
        return writer


def read_metrics(folder: str | Path) -> pd.DataFrame:
    """Read the metrics of a run.

    Args:
        folder: the run's folder.

    Returns:
        One row for each optimizer step that logged anything; what a resumed run logged again
        replaces what stood there.

    Raises:
        ValueError: if the folder holds no metrics.
    """
    path = Path(folder) / FILE_NAME
    if not path.exists():
        raise ValueError(
            f"run: expected {FILE_NAME} in {folder}, found none: is it a run's folder?"
        )
    return pd.read_csv(path).groupby("step").last()


def _read_rows(path: Path) -> list[dict[str, str]]:
    if not path.exists():
        return []
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file))
    return [{name: value for name, value in row.items() if value} for row in rows]
