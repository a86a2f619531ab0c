"""The file in which a run keeps its metrics."""

import csv
from collections.abc import Mapping
from io import StringIO
from pathlib import Path
from typing import Any

import pandas as pd
from lightning.pytorch.loggers.logger import Logger
from lightning.pytorch.utilities import rank_zero_only

from lit_entrodrop.folders import write_whole

FILE_NAME = "metrics.csv"
Row = dict[str, float]


class MetricsFile(Logger):
    """Log to ``metrics.csv`` in the run's folder, which a killed run leaves whole.

    The rows are in every checkpoint too: a resumed run goes on below those of its checkpoint.

    Args:
        folder: the run's folder.
    """

    def __init__(self, folder: str | Path) -> None:
        super().__init__()
        self.rows: list[Row] = []
        self._path = Path(folder) / FILE_NAME
        self._columns: list[str] = []

    @property
    def name(self) -> str:
        """None: a run has one file."""
        return ""

    @property
    def version(self) -> str:
        """None: a run has one file."""
        return ""

    @property
    def save_dir(self) -> str:
        """The run's folder."""
        return str(self._path.parent)

    @rank_zero_only
    def log_hyperparams(self, *args: Any, **kwargs: Any) -> None:
        """Keep nothing: ``config.yaml`` holds the settings."""

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Add a row."""
        assert step is not None, "all metrics here belong to a step"
        row = {**{name: float(value) for name, value in metrics.items()}, "step": step}
        self.rows.append(row)
        if row.keys() <= set(self._columns):
            self._append(row)
        else:
            self._write_all()

    @rank_zero_only
    def restore(self, rows: list[Row]) -> None:
        """Go on below the rows of a checkpoint."""
        self.rows = [dict(row) for row in rows]
        self._write_all()

    def _append(self, row: Row) -> None:
        # In one write, so that a line is there or not.
        with self._path.open("a", newline="") as file:
            csv.DictWriter(file, self._columns).writerow(row)

    def _write_all(self) -> None:
        self._columns = sorted({name for row in self.rows for name in row})
        file = StringIO(newline="")
        writer = csv.DictWriter(file, self._columns)
        writer.writeheader()
        writer.writerows(self.rows)
        write_whole(self._path, file.getvalue())


def read_metrics(folder: str | Path) -> pd.DataFrame:
    """Read the metrics of a run.

    Args:
        folder: the run's folder.

    Returns:
        One row for each optimizer step that logged anything.

    Raises:
        ValueError: if the folder holds no metrics.
    """
    path = Path(folder) / FILE_NAME
    if not path.exists():
        raise ValueError(
            f"run: expected {FILE_NAME} in {folder}, found none: is it a run's folder?"
        )
    return pd.read_csv(path).groupby("step").last()


def mean_drop_rate(metrics: pd.DataFrame) -> float:
    """Return the share of alterable tokens that were dropped, a mean over training steps.

    Args:
        metrics: of a run. The shares of several regularizers are added.

    Returns:
        NaN if no regularizer has dropped tokens.

    >>> mean_drop_rate(pd.DataFrame({"entro_drop/drop_rate": [0.1, 0.3]}))
    0.2
    """
    rates = [name for name in metrics if str(name).endswith("/drop_rate")]
    return float(metrics[rates].mean().sum()) if rates else float("nan")
