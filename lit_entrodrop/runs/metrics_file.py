"""Metrics file of a run."""

import csv
from collections.abc import Mapping
from io import StringIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lightning.pytorch.loggers.logger import Logger
from lightning.pytorch.utilities import rank_zero_only

from lit_entrodrop.runs.metric_name import AVERAGED, RESERVED_SPLITS, MetricName, by_entropy
from lit_entrodrop.runs.writing import naming_path, write_whole

if TYPE_CHECKING:
    import pandas as pd

FILE_NAME = "metrics.csv"
Row = dict[str, float]


class MetricsFile(Logger):
    """Log to ``metrics.csv`` in the run folder.

    A killed run leaves a complete file. Every checkpoint has the rows too: a resumed run continues
    after the rows of its checkpoint.

    Args:
        folder: Path to the run folder.
    """

    # Empty, as a run has one file.
    name = version = ""

    def __init__(self, folder: str | Path) -> None:
        super().__init__()
        self.rows: list[Row] = []
        self._path = Path(folder) / FILE_NAME
        self._columns: list[str] = []

    @property
    def save_dir(self) -> str:
        """Path to the run folder."""
        return str(self._path.parent)

    @rank_zero_only
    def log_hyperparams(self, *args: Any, **kwargs: Any) -> None:
        """Do nothing: ``config.yaml`` has the settings."""

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Add a row."""
        assert step is not None, "all metrics have a step"
        row = {**{name: float(value) for name, value in metrics.items()}, "step": step}
        self.rows.append(row)
        if row.keys() <= set(self._columns):
            self._append(row)
        else:
            self._write_all()

    @rank_zero_only
    def restore(self, rows: list[Row]) -> None:
        """Continue after the rows of a checkpoint."""
        self.rows = [dict(row) for row in rows]
        self._write_all()

    def _append(self, row: Row) -> None:
        # One write, so that a line is complete or absent.
        with naming_path(self._path), self._path.open("a", newline="") as file:
            csv.DictWriter(file, self._columns).writerow(row)

    def _write_all(self) -> None:
        self._columns = sorted({name for row in self.rows for name in row})
        file = StringIO(newline="")
        writer = csv.DictWriter(file, self._columns)
        writer.writeheader()
        writer.writerows(self.rows)
        write_whole(self._path, file.getvalue())


def read_metrics(folder: str | Path) -> "pd.DataFrame":
    """Read the metrics in a run folder: one row for each optimizer step that logged anything.

    Raises:
        ValueError: If the file is missing or cannot be read.
    """
    import pandas as pd

    path = Path(folder) / FILE_NAME
    if not path.exists():
        raise ValueError(f"run: expected {FILE_NAME} in {folder}, found none: use a run folder")
    try:
        return pd.read_csv(path).groupby("step").last()
    except (ValueError, LookupError) as error:
        raise ValueError(
            f"run: expected metrics by step in {path}, got a file that cannot be read "
            f"({type(error).__name__}: {error}): resume the run, which rewrites the file, or "
            "leave the run out"
        ) from error


def bucket_names(metrics: "pd.DataFrame") -> list[str]:
    """Return the entropy buckets that have a validation loss, from low to high.

    >>> import pandas as pd
    >>> bucket_names(pd.DataFrame(columns=["val/loss_high_entropy", "val/loss_low_entropy"]))
    ['low', 'high']
    """
    names = (MetricName.parse(str(column)) for column in metrics.columns)
    found = [n.bucket for n in names if (n.split, n.kind) == ("val", "loss") and n.bucket]
    return sorted(found, key=by_entropy)


def evaluation_sets(metrics: "pd.DataFrame") -> list[str]:
    """Return the names of the evaluation sets that have a loss, in alphabetical order.

    >>> import pandas as pd
    >>> evaluation_sets(pd.DataFrame(columns=["exam/loss", "exam/accuracy", "val/loss"]))
    ['exam']
    """
    names = (MetricName.parse(str(column)) for column in metrics.columns)
    splits = {n.split for n in names if n.kind == "loss" and not n.split.endswith(AVERAGED)}
    return sorted(splits - RESERVED_SPLITS)


def whole_rows(table: "pd.DataFrame") -> "pd.DataFrame":
    """Return the complete rows of a table of numbers: a killed run may truncate the last one.

    >>> import pandas as pd
    >>> whole_rows(pd.DataFrame({"a": ["1", "2"], "b": ["3", None]}))["a"].tolist()
    [1]
    """
    import pandas as pd

    numbers = table.apply(pd.to_numeric, errors="coerce")
    return numbers.dropna(subset=numbers.columns[-1:])


def mean_drop_rate(metrics: "pd.DataFrame") -> float:
    """Return the share of alterable tokens that were dropped, averaged over training steps.

    The shares of all regularizers are summed; NaN if none drops tokens.

    >>> import pandas as pd
    >>> mean_drop_rate(pd.DataFrame({"entro_drop/drop_rate": [0.1, 0.3]}))
    0.2
    """
    rates = [name for name in metrics if str(name).endswith("/drop_rate")]
    return float(metrics[rates].mean().sum()) if rates else float("nan")
