"""Runs side by side in a table."""

from collections.abc import Mapping
from pathlib import Path

import pandas as pd

from lit_entrodrop.metrics_file import read_metrics


def summarize(runs: Mapping[str, str | Path]) -> pd.DataFrame:
    """Return best and last validation loss of each run, in nats per token.

    Args:
        runs: folder of each run, by name.

    Returns:
        One row a run: ``val/loss best`` and ``val/loss last``; ``best_epoch``, counted from 1, 0
        before training; and ``drop_rate``, the mean share of tokens dropped, NaN where none is.
    """
    return pd.DataFrame({name: _summarize_run(Path(folder)) for name, folder in runs.items()}).T


def _summarize_run(folder: Path) -> dict[str, float]:
    metrics = read_metrics(folder)
    evaluations = metrics.dropna(subset=["val/loss"])
    losses = evaluations["val/loss"]
    best = losses.idxmin()
    rates = [name for name in metrics if name.endswith("/drop_rate")]
    return {
        "best_epoch": 0 if best == 0 else evaluations["epoch"][best] + 1,
        "val/loss best": losses[best],
        "val/loss last": losses.iloc[-1],
        "drop_rate": metrics[rates].mean().sum() if rates else float("nan"),
    }
