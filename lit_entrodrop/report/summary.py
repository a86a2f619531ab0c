"""Put runs side by side: a table of validation losses and a picture of their curves."""

from collections.abc import Iterable, Mapping
from itertools import cycle
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
COLORS = ("0.35", "#d1495b", "#00798c", "#edae49", "#6a4c93", "#66a182")


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
    result = Table(title="Validation loss in nats per token, best / last epoch")
    result.add_column("run", no_wrap=True)
    result.add_column("epoch", justify="right")
    for label in GROUPS.values():
        result.add_column(label.removesuffix(" tokens"), justify="right", no_wrap=True)
    result.add_column("dropped", justify="right")
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

    curves = {name: _curves(Path(folder)) for name, folder in runs.items()}
    figure, panels = plt.subplots(1, len(GROUPS), figsize=(12, 4.4), layout="constrained")
    for panel, (group, label) in zip(panels, GROUPS.items(), strict=True):
        for (name, curve), color in zip(curves.items(), cycle(COLORS)):
            panel.plot(curve.index, curve[group], label=name, color=color)
            best = curve["val/loss"].idxmin()
            panel.plot(best, curve[group][best], "o", color=color)
        panel.set(title=label, xlabel="epoch", ylim=_limits(curves.values(), group))
        panel.grid(alpha=0.3)
        panel.spines[["top", "right"]].set_visible(False)
    panels[0].set_ylabel("validation loss (nats per token)")
    handles, names = panels[0].get_legend_handles_labels()
    figure.legend(handles, names, loc="outside lower center", ncols=len(names), frameon=False)
    figure.suptitle(title)
    figure.savefig(path, dpi=150)
    plt.close(figure)
    return path


def _limits(curves: Iterable[pd.DataFrame], group: str) -> tuple[float, float]:
    # The loss before training is far above all others and would flatten the curves.
    values = pd.concat([curve[group].iloc[1:] for curve in curves])
    margin = 0.08 * (values.max() - values.min())
    return values.min() - margin, values.max() + margin


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
