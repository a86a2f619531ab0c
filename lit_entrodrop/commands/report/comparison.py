"""What a comparison of runs found, as the page shows it."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from lit_entrodrop.commands.report import formatting
from lit_entrodrop.commands.report.drawing import (
    CLEAN,
    INK,
    MUTED,
    VALIDATION,
    Picture,
    Sheet,
    picture,
)
from lit_entrodrop.commands.report.formatting import LOSS

COLORS = {"better": CLEAN, "worse": VALIDATION}


@dataclass(frozen=True)
class Cell:
    """A value of an arm, and how it differs; empty text where there is nothing to tell."""

    heading: str
    mean: str
    difference: str
    interval: str
    verdict: str


@dataclass(frozen=True)
class Row:
    """A row of a table."""

    name: str
    notes: list[str]
    verdict: str
    cells: list[Cell]


@dataclass(frozen=True)
class Tables:
    """All values of a comparison.

    Attributes:
        main: losses, a row for each arm.
        details: all others, a row for each value, with a cell for each arm.
        contrasts: all values of the contrasts, a cell for each.
    """

    main: list[Row]
    details: list[Row]
    contrasts: list[Row]


def tables(comparison: Mapping[str, Any]) -> Tables:
    """Lay out a comparison.

    Args:
        comparison: what ``comparison.json`` keeps.
    """
    arms = comparison["arms"]
    groups = formatting.by_group(name for arm in arms.values() for name in arm["metrics"])
    best = [name for name in groups["buckets"] if name.startswith("best/")]
    main = [*groups["loss"], *best]
    rest = [n for n in (*groups["buckets"], *groups["beside"]) if n not in main]
    asked = [each for each in comparison["contrasts"] if each["is_contrast"]]
    columns = {name: arm["metrics"] for name, arm in arms.items()}
    against = {label(each): each["metrics"] for each in asked}
    return Tables(
        main=[_arm_row(name, arm, main) for name, arm in arms.items()],
        details=[_value_row(name, columns) for name in rest],
        contrasts=[_value_row(name, against) for name in (*main, *rest)] if asked else [],
    )


def sentences(comparison: Mapping[str, Any]) -> list[str]:
    """Return the verdicts in words."""
    return [each["sentence"] for each in comparison["contrasts"]]


def label(contrast: Mapping[str, Any]) -> str:
    """Name a contrast by both arms.

    >>> label({"arm": "ours", "against": "plain"})
    'ours − plain'
    """
    return f"{contrast['arm']} − {contrast['against']}"


def number(contrast: Mapping[str, Any]) -> str:
    """Return the difference of a contrast and its interval as text.

    >>> number({"difference": -0.1, "interval": [-0.2, 0.0]})
    '−0.1000 [−0.2000, +0.0000]'
    """
    difference, interval = formatting.difference(LOSS, contrast)
    return f"{difference} {interval}".rstrip().replace("-", "−")


def forest(comparison: Mapping[str, Any], folder: Path, name: str) -> Picture:
    """Draw each difference with its interval beside zero."""
    shown = comparison["contrasts"]

    def draw(sheet: Sheet) -> Figure:
        row_height = 0.62 if sheet.narrow else 0.36
        size = sheet.width, row_height * len(shown) + 0.9
        figure = Figure(figsize=size, layout="constrained")
        axes = figure.subplots()
        for row, contrast in enumerate(reversed(shown)):
            _draw_row(axes, row, contrast, sheet.narrow)
        axes.axvline(0, color=INK, linewidth=1)
        axes.set(ylim=(-0.6, len(shown) - 0.4), xlabel="difference of best loss (nats per token)")
        axes.margins(x=0.08)
        axes.xaxis.set_major_locator(MaxNLocator(nbins=4 if sheet.narrow else 8))
        axes.grid(axis="y", visible=False)
        axes.spines["left"].set_visible(False)
        labels = [] if sheet.narrow else [label(each) for each in reversed(shown)]
        axes.set_yticks(range(len(labels)), labels, color=INK)
        return figure

    told = "; ".join(f"{label(each)}: {number(each)}, {each['verdict']}" for each in shown)
    caption = (
        "Differences of the best loss with 95 % intervals; left of zero is better. Blue: better, "
        "orange: worse, grey: none shown, or not tested. The verdict takes p corrected for the "
        "number of comparisons, so an interval, which is not corrected, may be grey and leave zero "
        "out."
    )
    return picture(folder, name, draw, f"Forest plot. {told}.", caption)


def color(contrast: Mapping[str, Any]) -> str:
    """Return the colour of a contrast's verdict."""
    return COLORS.get(contrast["verdict"], MUTED)


def _draw_row(axes: Axes, row: int, contrast: Mapping[str, Any], narrow: bool) -> None:
    ends = contrast["interval"] or [contrast["difference"]]
    axes.plot(ends, [row] * len(ends), color=color(contrast), linewidth=2.2)
    axes.plot(contrast["difference"], row, "s", color=color(contrast), markersize=6)
    place: dict[str, Any] = {"xycoords": ("axes fraction", "data"), "textcoords": "offset points"}
    if narrow:
        axes.annotate(label(contrast), (0, row), xytext=(0, 9), fontweight="bold", **place)
        axes.annotate(number(contrast), (0, row), xytext=(0, -14), color=MUTED, **place)
    else:
        axes.annotate(number(contrast), (1, row), xytext=(8, 0), va="center", **place)


def _arm_row(name: str, arm: Mapping[str, Any], metrics: Iterable[str]) -> Row:
    count = len(arm["runs"])
    notes = [*filter(None, [arm["chosen"]]), f"{count} seed{'s' * (count > 1)}"]
    cells = [_cell(formatting.title(m), m, arm["metrics"].get(m)) for m in metrics]
    return Row(name, notes, arm["verdict"] or "baseline", cells)


def _value_row(metric: str, columns: Mapping[str, Mapping[str, Any]]) -> Row:
    cells = [_cell(heading, metric, values.get(metric)) for heading, values in columns.items()]
    return Row(formatting.title(metric), [], "", cells)


def _cell(heading: str, metric: str, found: Mapping[str, Any] | None) -> Cell:
    if found is None:
        return Cell(heading, formatting.NOTHING, "", "", "")
    mean = formatting.number(metric, found["mean"]) if "mean" in found else ""
    difference, interval = formatting.difference(metric, found)
    verdict = found.get("verdict")
    told = [text.replace("-", "−") for text in (mean, difference, interval)]
    return Cell(heading, told[0], told[1], told[2], verdict if verdict in COLORS else "")
