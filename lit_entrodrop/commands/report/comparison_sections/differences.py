"""Differences between arms on the page."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from lit_entrodrop.commands.report.rendering import formatting, plotting
from lit_entrodrop.commands.report.rendering.formatting import LAST, LOSS

COLORS = {"better": plotting.CLEAN, "worse": plotting.VALIDATION}
MOMENTS = {LOSS: "best epoch", LAST: "last epoch"}


def metrics_by_table(comparison: Mapping[str, Any]) -> tuple[list[str], list[str]]:
    """Return the names of the losses in the main table, and of all other values."""
    arms = comparison["arms"].values()
    groups = formatting.by_group(name for arm in arms for name in arm["metrics"])
    best = [name for name in groups["buckets"] if name.startswith("best/loss")]
    losses = [*groups["loss"], *groups["sets"], *best]
    others = [*groups["task"], *groups["buckets"], *groups["others"]]
    return losses, [name for name in others if name not in losses]


def label(contrast: Mapping[str, Any]) -> str:
    """Name a contrast by both arms.

    >>> label({"arm": "mine", "against": "plain"})
    'mine − plain'
    """
    return f"{contrast['arm']} − {contrast['against']}"


def with_interval(found: Mapping[str, Any]) -> str:
    """Return the difference of two losses and its interval as text.

    >>> with_interval({"difference": -0.1, "interval": [-0.2, 0.0]})
    '−0.1000 [−0.2000, +0.0000]'
    """
    return " ".join(formatting.difference(LOSS, found)).rstrip().replace("-", "−")


def forest(comparison: Mapping[str, Any], folder: Path, name: str) -> plotting.FigureHtml | None:
    """Draw the differences with their intervals, a panel for the best and for the last epoch."""
    contrasts = comparison["contrasts"]
    panels_of = {
        moment: {label(each): each["metrics"][metric] for each in contrasts}
        for metric, moment in MOMENTS.items()
        if contrasts and all(metric in each["metrics"] for each in contrasts)
    }
    if not panels_of:
        return None

    def draw(canvas: plotting.Canvas) -> Figure:
        height = (0.62 if canvas.narrow else 0.36) * len(contrasts) + 0.8
        figure, panels = canvas.panels(len(panels_of), height, most=2)
        for panel, (moment, rows) in zip(panels, panels_of.items(), strict=True):
            _draw_panel(panel, rows, canvas.narrow)
            panel.set_title(f"{comparison['split'].capitalize()} loss at the {moment}")
        for panel in panels[1:]:
            panel.tick_params(labelleft=False)
        return figure

    description = "; ".join(
        f"{arms} at the {moment}: {with_interval(found)}, {found['verdict']}"
        for moment, rows in panels_of.items()
        for arms, found in rows.items()
    )
    caption = (
        "Differences of the loss with 95% intervals; left of zero is better. Blue: better, "
        "orange: worse, gray: no difference shown, or not tested. Verdicts use corrected p values "
        "and intervals are not corrected, so a gray interval can exclude zero."
    )
    return plotting.render_figure(folder, name, draw, f"Forest plot. {description}.", caption)


def color(found: Mapping[str, Any]) -> str:
    """Return the color of a verdict."""
    return COLORS.get(found["verdict"], plotting.MUTED)


def _draw_panel(axes: Axes, rows: Mapping[str, Mapping[str, Any]], narrow: bool) -> None:
    last = len(rows) - 1
    for place, (arms, found) in enumerate(rows.items()):
        _draw_row(axes, last - place, arms, found, narrow)
    axes.axvline(0, color=plotting.INK, linewidth=1)
    axes.set(ylim=(-0.6, last + 0.6), xlabel="difference (nats per token)")
    axes.margins(x=0.08)
    axes.xaxis.set_major_locator(MaxNLocator(nbins=4))
    axes.grid(axis="y", visible=False)
    axes.spines["left"].set_visible(False)
    names = [] if narrow else list(rows)[::-1]
    axes.set_yticks(range(len(names)), names, color=plotting.INK)


def _draw_row(axes: Axes, row: int, arms: str, found: Mapping[str, Any], narrow: bool) -> None:
    ends = found["interval"] or [found["difference"]]
    axes.plot(ends, [row] * len(ends), color=color(found), linewidth=2.2)
    axes.plot(found["difference"], row, "s", color=color(found), markersize=6)
    side = "axes fraction", "data"
    if narrow:
        plotting.write_near(axes, arms, (0, row), (0, 9), fontweight="bold", xycoords=side)
        plotting.write_near(
            axes, with_interval(found), (0, row), (0, -14), color=plotting.MUTED, xycoords=side
        )
    else:
        plotting.write_near(
            axes, with_interval(found), (1, row), (8, 0), va="center", xycoords=side
        )
