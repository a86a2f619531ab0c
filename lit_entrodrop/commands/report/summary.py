"""Runs side by side in a table."""

from collections.abc import Mapping
from pathlib import Path

import pandas as pd

from lit_entrodrop.runs.evaluations import validations
from lit_entrodrop.runs.metrics_file import mean_drop_rate, read_metrics


def summarize(runs: Mapping[str, str | Path]) -> pd.DataFrame:
    """Return best and last validation loss of each run, in nats per token.

    Args:
        runs: folder of each run, by name.

    Returns:
        One row a run: ``val/loss best``, the lowest since training began, and ``val/loss last``;
        ``best_epoch``, passes over the data at the lowest; ``drop_rate``, the mean share of
        alterable tokens that were dropped. NaN stands for what a run has not come to.
    """
    return pd.DataFrame({name: _summarize_run(Path(folder)) for name, folder in runs.items()}).T


def _summarize_run(folder: Path) -> dict[str, float]:
    metrics = read_metrics(folder)
    evaluated = validations(folder, metrics)
    trained = evaluated[evaluated.index > 0]
    best = trained["val/loss"].idxmin() if len(trained) else None
    return {
        "best_epoch": trained["passes"].get(best, float("nan")),
        "val/loss best": trained["val/loss"].get(best, float("nan")),
        "val/loss last": evaluated["val/loss"].iloc[-1],
        "drop_rate": mean_drop_rate(metrics),
    }
