"""The figure of entropies over epochs."""

from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from lit_entrodrop.commands.report.drawing import CLEAN, INK, MUTED, Picture, Sheet, picture
from lit_entrodrop.commands.report.run import Run
from lit_entrodrop.runs.evaluations import Evaluation

MOST = 12
OVERLAP = 1.7


def entropy_ridges(run: Run, folder: Path, name: str) -> Picture | None:
    """Draw how the entropies of validation tokens are spread, a ridge for each evaluation."""
    shown = thinned([e for e in run.detailed if e.histogram.sum() > 0])
    if not shown:
        return None

    def draw(sheet: Sheet) -> Figure:
        height = 0.3 * len(shown) + 1.3
        figure = Figure(figsize=(sheet.width, height), layout="constrained")
        _draw(figure.subplots(), shown, run)
        return figure

    first, last = shown[0], shown[-1]
    told = (
        "Ridge chart: how the entropies of the model's predictions on validation text are spread. "
        f"Mean {mean_entropy(first):.2f} nats {when(first)}, {mean_entropy(last):.2f} {when(last)}."
    )
    caption = (
        "Each ridge is one evaluation; its height is the share of validation tokens. Dots and "
        "numbers: means. Dotted lines: limits of the buckets, by the initial model's entropy."
    )
    return picture(folder, name, draw, told, caption)


def thinned(evaluations: list[Any], most: int = MOST) -> list[Any]:
    """Return at most so many of a list, evenly chosen, with the first and the last.

    >>> thinned(list(range(10)), 4)
    [0, 3, 6, 9]
    """
    if len(evaluations) <= most:
        return evaluations
    chosen = np.linspace(0, len(evaluations) - 1, most).round().astype(int)
    return [evaluations[i] for i in chosen]


def mean_entropy(evaluation: Evaluation) -> float:
    """Return the mean entropy of validation tokens in nats, from the middles of bins."""
    middles = (evaluation.histogram_edges[1:] + evaluation.histogram_edges[:-1]) / 2
    return float(np.average(middles, weights=evaluation.histogram))


def when(evaluation: Evaluation) -> str:
    """Say when an evaluation was made."""
    return f"after epoch {evaluation.epoch:.3g}" if evaluation.step else "before training"


def _draw(axes: Axes, shown: list[Evaluation], run: Run) -> None:
    shares = [e.histogram / e.histogram.sum() / np.diff(e.histogram_edges) for e in shown]
    scale = OVERLAP / max(share.max() for share in shares)
    seen = np.sum([e.histogram for e in shown], axis=0)
    right = shown[0].histogram_edges[1:][np.cumsum(seen) <= 0.999 * seen.sum()].max(initial=1.0)
    for row, (evaluation, share) in enumerate(zip(shown, shares, strict=True)):
        floor = len(shown) - 1 - row
        middles = (evaluation.histogram_edges[1:] + evaluation.histogram_edges[:-1]) / 2
        x, y = [0, *middles], floor + scale * np.array([share[0], *share])
        alpha = 0.25 + 0.6 * row / max(len(shown) - 1, 1)
        axes.fill_between(x, floor, y, color="white", zorder=2 * row + 2)
        axes.fill_between(x, floor, y, color=CLEAN, alpha=alpha, linewidth=0, zorder=2 * row + 2)
        axes.plot(x, y, color="white", linewidth=1, zorder=2 * row + 3)
        mean = mean_entropy(evaluation)
        axes.plot(mean, floor, "o", color=INK, markersize=3.5, zorder=99, clip_on=False)
        axes.annotate(
            f"{mean:.2f}",
            (1, floor),
            xycoords=("axes fraction", "data"),
            xytext=(4, 0),
            textcoords="offset points",
            va="center",
            color=INK,
        )
    for edge in run.edges:
        axes.axvline(edge, color=MUTED, linewidth=1, linestyle=":", zorder=98)
    axes.set_yticks(range(len(shown)), [_short(e) for e in reversed(shown)])
    axes.set(xlim=(0, right), ylim=(-0.25, len(shown) - 1 + OVERLAP * 1.05))
    axes.set_xlabel("entropy of the model's prediction (nats)")
    axes.annotate(
        "mean",
        (1, len(shown) - 0.45),
        xycoords=("axes fraction", "data"),
        xytext=(4, 0),
        textcoords="offset points",
        color=MUTED,
    )
    axes.spines["left"].set_visible(False)
    axes.grid(visible=False)


def _short(evaluation: Evaluation) -> str:
    return f"epoch {evaluation.epoch:.3g}" if evaluation.step else "start"
