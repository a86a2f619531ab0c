"""Table of several runs."""

from collections.abc import Mapping
from pathlib import Path

import pandas as pd

from lit_entrodrop.runs.evaluations import validations
from lit_entrodrop.runs.metrics_file import mean_drop_rate, read_metrics


def summarize(runs: Mapping[str, str | Path]) -> pd.DataFrame:
    """Return the best and the last validation loss of each run, in nats per token.

    Args:
        runs: Run folders by name.

    Returns:
        One row for each run: ``val/loss best``, the lowest since training began; ``val/loss
        last``; ``best_epoch``, passes over the data at the lowest; ``drop_rate``, mean share of
        tokens dropped of those that may be. NaN where there is no value yet.
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
