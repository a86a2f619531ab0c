"""Figure of the entropies over epochs."""

from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from lit_entrodrop.commands.report.records.run_record import RunRecord
from lit_entrodrop.commands.report.rendering import plotting
from lit_entrodrop.runs.evaluations import Evaluation

MOST = 12
OVERLAP = 1.7


def entropy_ridges(run: RunRecord, folder: Path, name: str) -> plotting.FigureHtml | None:
    """Draw the distribution of entropies on validation text, a ridge for each evaluation."""
    shown = thinned([e for e in run.detailed if e.histogram.sum() > 0])
    if not shown:
        return None

    def draw(canvas: plotting.Canvas) -> Figure:
        height = 0.3 * len(shown) + 1.3
        figure = Figure(figsize=(canvas.width, height), layout="constrained")
        _draw(figure.subplots(), shown, run)
        return figure

    first, last = shown[0], shown[-1]
    description = (
        "Ridge chart: distribution of the entropies of the model's predictions on validation text. "
        f"Mean {mean_entropy(first):.2f} nats {when(first)}, {mean_entropy(last):.2f} {when(last)}."
    )
    caption = (
        "Each ridge is one evaluation; its height is the share of validation tokens. Dots and "
        "numbers: means. Dotted lines: edges of the buckets of the initial model's entropy."
    )
    return plotting.render_figure(folder, name, draw, description, caption)


def thinned(evaluations: list[Any], most: int = MOST) -> list[Any]:
    """Return at most `most` elements, evenly spaced, with the first and the last.

    >>> thinned(list(range(10)), 4)
    [0, 3, 6, 9]
    """
    if len(evaluations) <= most:
        return evaluations
    chosen = np.linspace(0, len(evaluations) - 1, most).round().astype(int)
    return [evaluations[i] for i in chosen]


def mean_entropy(evaluation: Evaluation) -> float:
    """Return the mean entropy of validation tokens in nats, from the centers of the bins."""
    middles = (evaluation.histogram_edges[1:] + evaluation.histogram_edges[:-1]) / 2
    return float(np.average(middles, weights=evaluation.histogram))


def when(evaluation: Evaluation) -> str:
    """Return the time of an evaluation."""
    return f"after epoch {evaluation.epoch:.3g}" if evaluation.step else "before training"


def _draw(axes: Axes, shown: list[Evaluation], run: RunRecord) -> None:
    shares = [e.histogram / e.histogram.sum() / np.diff(e.histogram_edges) for e in shown]
    scale = OVERLAP / max(share.max() for share in shares)
    seen = np.sum([e.histogram for e in shown], axis=0)
    most = shown[0].histogram_edges[1:][np.cumsum(seen) <= 0.999 * seen.sum()].max(initial=1.0)
    right: dict[str, Any] = {"offset": (4, 0), "xycoords": ("axes fraction", "data")}
    for row, (evaluation, share) in enumerate(zip(shown, shares, strict=True)):
        floor = len(shown) - 1 - row
        middles = (evaluation.histogram_edges[1:] + evaluation.histogram_edges[:-1]) / 2
        x, y = [0, *middles], floor + scale * np.array([share[0], *share])
        alpha = 0.25 + 0.6 * row / max(len(shown) - 1, 1)
        axes.fill_between(x, floor, y, color="white", zorder=2 * row + 2)
        axes.fill_between(
            x, floor, y, color=plotting.CLEAN, alpha=alpha, linewidth=0, zorder=2 * row + 2
        )
        axes.plot(x, y, color="white", linewidth=1, zorder=2 * row + 3)
        mean = mean_entropy(evaluation)
        axes.plot(mean, floor, "o", color=plotting.INK, markersize=3.5, zorder=99, clip_on=False)
        plotting.write_near(
            axes, f"{mean:.2f}", (1, floor), **right, va="center", color=plotting.INK
        )
    for edge in run.edges:
        axes.axvline(edge, color=plotting.MUTED, linewidth=1, linestyle=":", zorder=98)
    axes.set_yticks(range(len(shown)), [_short(e) for e in reversed(shown)])
    axes.set(xlim=(0, most), ylim=(-0.25, len(shown) - 1 + OVERLAP * 1.05))
    axes.set_xlabel("entropy of the predicted distribution (nats)")
    plotting.write_near(axes, "mean\n(nats)", (1, len(shown) - 0.45), **right, color=plotting.MUTED)
    axes.spines["left"].set_visible(False)
    axes.grid(visible=False)


def _short(evaluation: Evaluation) -> str:
    return f"epoch {evaluation.epoch:.3g}" if evaluation.step else "before training"
