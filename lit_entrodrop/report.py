"""Put runs side by side: a table of validation losses and a picture of their curves."""

from collections.abc import Mapping
from pathlib import Path

import matplotlib
import pandas as pd
from rich.table import Table

from lit_entrodrop.metrics_file import read_metrics

GROUPS = {
    "val/loss": "all tokens",
    "val/loss_low_entropy": "low-entropy tokens",
    "val/loss_high_entropy": "high-entropy tokens",
}
BASELINE_COLOR = "0.35"
COLORS = ("#d1495b", "#00798c", "#edae49", "#6a4c93", "#66a182")


def summarize(runs: Mapping[str, str | Path]) -> pd.DataFrame:
    """Return best and last validation loss of each run, in nats per token.

    Args:
        runs: folder of each run, by name.

    Returns:
        One row a run. For each token group the loss ``best`` (at the evaluation with the lowest
        loss over all tokens) and ``last``; ``best_epoch``, counted from 1, 0 before training; and
        ``drop_rate``, the mean share of tokens dropped, NaN where none is.
    """
    return pd.DataFrame({name: _summarize_run(Path(folder)) for name, folder in runs.items()}).T


def table(summary: pd.DataFrame) -> Table:
    """Lay out a summary for the terminal."""
    result = Table(title="Validation loss, nats per token (lower is better)")
    result.add_column("run")
    result.add_column("best epoch", justify="right")
    for label in GROUPS.values():
        result.add_column(f"{label}\nbest / last", justify="right")
    result.add_column("tokens\ndropped", justify="right")
    for name, row in summary.iterrows():
        losses = [f"{row[f'{g} best']:.3f} / {row[f'{g} last']:.3f}" for g in GROUPS]
        dropped = "–" if pd.isna(row["drop_rate"]) else f"{row['drop_rate']:.1%}"
        result.add_row(str(name), f"{row['best_epoch']:.0f}", *losses, dropped)
    return result


def plot_curves(runs: Mapping[str, str | Path], path: Path, title: str = "") -> Path:
    """Draw validation loss over epochs, one panel for each token group.

    Args:
        runs: folder of each run, by name; the first is the baseline and drawn in grey.
        path: the picture to write; its ending decides the format.
        title: stands above the panels.

    Returns:
        The path.
    """
    matplotlib.use("agg")
    from matplotlib import pyplot as plt

    figure, panels = plt.subplots(1, len(GROUPS), figsize=(12, 4), layout="constrained")
    colors = (BASELINE_COLOR, *COLORS)
    for index, (name, folder) in enumerate(runs.items()):
        curves = _curves(Path(folder))
        for panel, group in zip(panels, GROUPS, strict=True):
            panel.plot(curves.index, curves[group], label=name, color=colors[index % len(colors)])
            best = curves["val/loss"].idxmin()
            panel.plot(best, curves[group][best], "o", color=colors[index % len(colors)])
    for panel, label in zip(panels, GROUPS.values(), strict=True):
        panel.set(title=label, xlabel="epoch")
        panel.grid(alpha=0.3)
        panel.spines[["top", "right"]].set_visible(False)
    panels[0].set_ylabel("validation loss (nats per token)")
    panels[-1].legend(frameon=False)
    _zoom_on_training(panels, [_curves(Path(folder)) for folder in runs.values()])
    figure.suptitle(title)
    figure.savefig(path, dpi=150)
    plt.close(figure)
    return path


def _zoom_on_training(panels: object, curves: list[pd.DataFrame]) -> None:
    # The loss before training is far above all others and would flatten the curves.
    for panel, group in zip(panels, GROUPS, strict=True):  # type: ignore[call-overload]
        values = pd.concat([curve[group].iloc[1:] for curve in curves])
        low, high = values.min(), values.quantile(0.9)
        panel.set_ylim(low - 0.1 * (high - low), high + 0.25 * (high - low))


def _summarize_run(folder: Path) -> dict[str, float]:
    curves = _curves(folder)
    best = curves["val/loss"].idxmin()
    losses = {f"{group} best": curves[group][best] for group in GROUPS}
    losses |= {f"{group} last": curves[group].iloc[-1] for group in GROUPS}
    metrics = read_metrics(folder)
    rates = [name for name in metrics if name.endswith("/drop_rate")]
    drop_rate = metrics[rates].mean().sum() if rates else float("nan")
    return {"best_epoch": best, **losses, "drop_rate": drop_rate}


def _curves(folder: Path) -> pd.DataFrame:
    evaluations = read_metrics(folder).dropna(subset=["val/loss"])
    epochs = [0 if step == 0 else epoch + 1 for step, epoch in evaluations["epoch"].items()]
    return evaluations.reindex(columns=list(GROUPS)).set_axis(epochs)
