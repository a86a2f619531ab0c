"""The differences between arms, as the page shows them."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from lit_entrodrop.commands.report import formatting
from lit_entrodrop.commands.report.formatting import LAST, LOSS
from lit_entrodrop.commands.report.plotting import (
    CLEAN,
    INK,
    MUTED,
    VALIDATION,
    Canvas,
    FigureHtml,
    render_figure,
)

COLORS = {"better": CLEAN, "worse": VALIDATION}
MOMENTS = {LOSS: "best epoch", LAST: "last epoch"}


@dataclass(frozen=True)
class Difference:
    """A row of the table of differences.

    Attributes:
        arms: Both arms.
        moment: Evaluation at which the losses are compared.
        value: Difference and 95% interval, nats per token.
        p: p value.
        p_corrected: p value, corrected for the number of comparisons.
        verdict: Better, worse, no difference shown or not tested.
    """

    arms: str
    moment: str
    value: str
    p: float | None
    p_corrected: float | None
    verdict: str


@dataclass(frozen=True)
class ValueCell:
    """A value of an arm and its difference; empty text where there is none."""

    heading: str
    mean: str
    difference: str
    interval: str
    verdict: str


@dataclass(frozen=True)
class ValueRow:
    """A row of a table of values."""

    name: str
    notes: list[str]
    verdict: str
    cells: list[ValueCell]


@dataclass(frozen=True)
class ValueTables:
    """All values of a comparison.

    Attributes:
        main: Losses, one row for each arm.
        details: All other values, one row each, with a cell for each arm.
        contrasts: All values of the contrasts, with a cell for each contrast.
    """

    main: list[ValueRow]
    details: list[ValueRow]
    contrasts: list[ValueRow]


def value_tables(comparison: Mapping[str, Any]) -> ValueTables:
    """Lay out all values of a comparison.

    Args:
        comparison: Content of ``comparison.json``.
    """
    arms = comparison["arms"]
    groups = formatting.by_group(name for arm in arms.values() for name in arm["metrics"])
    best = [name for name in groups["buckets"] if name.startswith("best/")]
    main = [*groups["loss"], *best]
    rest = [n for n in (*groups["buckets"], *groups["beside"]) if n not in main]
    asked = [each for each in comparison["contrasts"] if each["is_contrast"]]
    columns = {name: arm["metrics"] for name, arm in arms.items()}
    against = {label(each): each["metrics"] for each in asked}
    return ValueTables(
        main=[_arm_row(name, arm, main) for name, arm in arms.items()],
        details=[_value_row(name, columns) for name in rest],
        contrasts=[_value_row(name, against) for name in (*main, *rest)] if asked else [],
    )


def differences(comparison: Mapping[str, Any]) -> list[Difference]:
    """Return the difference of each pair of arms at the best and at the last epoch.

    Args:
        comparison: Content of ``comparison.json``.
    """
    return [
        Difference(
            label(contrast),
            moment,
            number(found),
            found["p"],
            found["p_corrected"],
            found["verdict"],
        )
        for contrast in comparison["contrasts"]
        for metric, moment in MOMENTS.items()
        if (found := contrast["metrics"].get(metric))
    ]


def label(contrast: Mapping[str, Any]) -> str:
    """Name a contrast by both arms.

    >>> label({"arm": "mine", "against": "plain"})
    'mine − plain'
    """
    return f"{contrast['arm']} − {contrast['against']}"


def number(found: Mapping[str, Any]) -> str:
    """Return the difference of two losses and its interval as text.

    >>> number({"difference": -0.1, "interval": [-0.2, 0.0]})
    '−0.1000 [−0.2000, +0.0000]'
    """
    difference, interval = formatting.difference(LOSS, found)
    return f"{difference} {interval}".rstrip().replace("-", "−")


def forest(comparison: Mapping[str, Any], folder: Path, name: str) -> FigureHtml | None:
    """Draw the differences with their intervals, a panel for the best and for the last epoch."""
    contrasts = comparison["contrasts"]
    panels_of = {
        moment: {label(each): each["metrics"][metric] for each in contrasts}
        for metric, moment in MOMENTS.items()
        if contrasts and all(metric in each["metrics"] for each in contrasts)
    }
    if not panels_of:
        return None

    def draw(canvas: Canvas) -> Figure:
        height = (0.62 if canvas.narrow else 0.36) * len(contrasts) + 0.8
        figure, panels = canvas.panels(len(panels_of), height, most=2)
        for panel, (moment, rows) in zip(panels, panels_of.items(), strict=True):
            _draw_panel(panel, rows, canvas.narrow)
            panel.set_title(f"{comparison['split'].capitalize()} loss at the {moment}")
        for panel in panels[1:]:
            panel.tick_params(labelleft=False)
        return figure

    description = "; ".join(
        f"{arms} at the {moment}: {number(found)}, {found['verdict']}"
        for moment, rows in panels_of.items()
        for arms, found in rows.items()
    )
    caption = (
        "Differences of the loss with 95% intervals; left of zero is better. Blue: better, "
        "orange: worse, gray: no difference shown, or not tested. Verdicts use corrected p values "
        "and intervals are not corrected, so a gray interval can exclude zero."
    )
    return render_figure(folder, name, draw, f"Forest plot. {description}.", caption)


def color(found: Mapping[str, Any]) -> str:
    """Return the color of a verdict."""
    return COLORS.get(found["verdict"], MUTED)


def _draw_panel(axes: Axes, rows: Mapping[str, Mapping[str, Any]], narrow: bool) -> None:
    last = len(rows) - 1
    for place, (arms, found) in enumerate(rows.items()):
        _draw_row(axes, last - place, arms, found, narrow)
    axes.axvline(0, color=INK, linewidth=1)
    axes.set(ylim=(-0.6, last + 0.6), xlabel="difference (nats per token)")
    axes.margins(x=0.08)
    axes.xaxis.set_major_locator(MaxNLocator(nbins=4))
    axes.grid(axis="y", visible=False)
    axes.spines["left"].set_visible(False)
    names = [] if narrow else list(rows)[::-1]
    axes.set_yticks(range(len(names)), names, color=INK)


def _draw_row(axes: Axes, row: int, arms: str, found: Mapping[str, Any], narrow: bool) -> None:
    ends = found["interval"] or [found["difference"]]
    axes.plot(ends, [row] * len(ends), color=color(found), linewidth=2.2)
    axes.plot(found["difference"], row, "s", color=color(found), markersize=6)
    place: dict[str, Any] = {"xycoords": ("axes fraction", "data"), "textcoords": "offset points"}
    if narrow:
        axes.annotate(arms, (0, row), xytext=(0, 9), fontweight="bold", **place)
        axes.annotate(number(found), (0, row), xytext=(0, -14), color=MUTED, **place)
    else:
        axes.annotate(number(found), (1, row), xytext=(8, 0), va="center", **place)


def _arm_row(name: str, arm: Mapping[str, Any], metrics: Iterable[str]) -> ValueRow:
    count = len(arm["runs"])
    notes = [*filter(None, [arm["chosen"]]), f"{count} seed{'s' * (count > 1)}"]
    cells = [_cell(formatting.title(m), m, arm["metrics"].get(m)) for m in metrics]
    return ValueRow(name, notes, arm["verdict"] or "baseline", cells)


def _value_row(metric: str, columns: Mapping[str, Mapping[str, Any]]) -> ValueRow:
    cells = [_cell(heading, metric, values.get(metric)) for heading, values in columns.items()]
    return ValueRow(formatting.title(metric), [], "", cells)


def _cell(heading: str, metric: str, found: Mapping[str, Any] | None) -> ValueCell:
    if found is None:
        return ValueCell(heading, formatting.NOTHING, "", "", "")
    mean = formatting.number(metric, found["mean"]) if "mean" in found else ""
    difference, interval = formatting.difference(metric, found)
    mean, difference, interval = (t.replace("-", "−") for t in (mean, difference, interval))
    verdict = found.get("verdict")
    return ValueCell(heading, mean, difference, interval, verdict if verdict in COLORS else "")
