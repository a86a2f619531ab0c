"""Figures as the page shows them: one drawing for wide screens and paper, one for phones."""

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from html import escape
from io import StringIO
from itertools import accumulate
from pathlib import Path
from typing import Any

import matplotlib
from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap, to_hex
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.ticker import MaxNLocator

INK, MUTED, RULE = "#1b1f24", "#5b6570", "#d9dee3"
# From the palette of Okabe and Ito, which colour-blind readers tell apart.
TRAIN, CLEAN, VALIDATION = "#8a939c", "#0072b2", "#d55e00"
# Low entropy is dark, high entropy bright: an order that survives grey printing.
BUCKETS = ("#4a1486", "#b12a90", "#e8743b")
SERIES = ("#5b6570", "#d55e00", "#0072b2", "#009e73", "#cc79a7", "#b8860b", "#4a1486", "#56b4e9")
FONTS = "system-ui, -apple-system, 'Segoe UI', Roboto, 'Helvetica Neue', Arial, sans-serif"
STYLE: dict[Any, Any] = {
    "font.family": "DejaVu Sans",
    "font.size": 8.5,
    "axes.titlesize": 9.5,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.labelcolor": MUTED,
    "axes.edgecolor": "#9aa3ab",
    "axes.linewidth": 0.8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#e8ebee",
    "grid.linewidth": 0.8,
    "lines.linewidth": 1.9,
    "lines.solid_capstyle": "round",
    "text.color": INK,
    # A name with two dollar signs is no formula.
    "text.parse_math": False,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "xtick.major.size": 0,
    "ytick.major.size": 0,
    "legend.frameon": False,
    "legend.handlelength": 1.4,
    "svg.fonttype": "none",
}
WIDE, NARROW = 10.4, 3.7  # inches


@dataclass(frozen=True)
class Sheet:
    """What a figure is drawn on.

    Args:
        narrow: whether it is a phone's screen.
    """

    narrow: bool

    @property
    def width(self) -> float:
        """In inches."""
        return NARROW if self.narrow else WIDE

    def panels(self, count: int, height: float, most: int = 4) -> tuple[Figure, list[Axes]]:
        """Lay out panels of a height in inches, as many beside each other as there is room for."""
        # One panel alone keeps the half of a page, which a line over a few epochs fills.
        columns = 1 if self.narrow else min(max(count, 2), most)
        rows = -(-count // columns)
        layout = ConstrainedLayoutEngine(w_pad=0.1, h_pad=0.08)
        figure = Figure(figsize=(self.width, rows * height + 0.35), layout=layout)
        axes = list(figure.subplots(rows, columns, squeeze=False).flat)
        for spare in axes[count:]:
            spare.remove()
        return figure, axes[:count]


@dataclass(frozen=True)
class Picture:
    """A figure of the page."""

    caption: str
    wide: Markup
    narrow: Markup


def picture(
    folder: Path, name: str, draw: Callable[[Sheet], Figure], alt: str, caption: str
) -> Picture:
    """Draw a figure, and keep it as SVG and PNG.

    Args:
        folder: to write ``name.svg`` and ``name.png`` to.
        name: of the figure.
        draw: draws it on a sheet.
        alt: says in words what it shows.
        caption: stands below it.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with matplotlib.rc_context(STYLE):
        wide = draw(Sheet(narrow=False))
        wide.savefig(folder / f"{name}.png", dpi=150)
        text = svg(wide, name)
        narrow = svg(draw(Sheet(narrow=True)), f"{name}-narrow")
    (folder / f"{name}.svg").write_text(text, encoding="utf-8")
    return Picture(caption, _inline(text, alt), _inline(narrow, alt))


def svg(figure: Figure, salt: str) -> str:
    """Return a figure as SVG, the same for the same figure and salt."""
    file = StringIO()
    without = dict.fromkeys(("Creator", "Date", "Format", "Type"))
    with matplotlib.rc_context({"svg.hashsalt": salt}):
        figure.savefig(file, format="svg", metadata=without)
    return file.getvalue().replace("'DejaVu Sans'", FONTS)


def legend(figure: Figure, lines: Mapping[str, Any]) -> None:
    """Name lines once, above all panels.

    Args:
        figure: with its panels.
        lines: drawn ones, by any name: the labels of matplotlib may not begin with ``_``.
    """
    wide = figure.get_figwidth() > NARROW
    columns = len(lines) if wide and len(lines) <= 6 else 4 if wide else 2
    figure.legend(
        list(lines.values()),
        list(lines),
        loc="outside upper left",
        ncols=columns,
        columnspacing=1.4,
    )


def label_ends(axes: Any, ends: Iterable[tuple[float, str, str]], x: float) -> None:
    """Write names right of the ends of lines, none over another.

    Args:
        axes: with its limits set.
        ends: height, name and colour of each line.
        x: where the lines end.
    """
    low, high = axes.get_ylim()
    rows = axes.get_subplotspec().get_gridspec().nrows
    height = axes.figure.get_figheight() / rows * 0.75
    ordered = sorted(ends)
    places = apart([y for y, _, _ in ordered], (high - low) * 0.16 / height, high)
    for y, (_, name, color) in zip(places, ordered, strict=True):
        axes.annotate(
            name,
            (x, y),
            xytext=(6, 0),
            textcoords="offset points",
            color=color,
            va="center",
            fontweight="bold",
            annotation_clip=False,
        )


def apart(heights: list[float], distance: float, top: float) -> list[float]:
    """Move heights, given from low to high, so far that none is too near the next.

    >>> apart([0.0, 0.5, 4.0], distance=1.0, top=4.0), apart([3.5, 4.0], distance=1.0, top=4.0)
    ([0.0, 1.0, 4.0], [3.0, 4.0])
    """
    raised = list(accumulate(heights, lambda below, y: max(y, below + distance)))
    ceilings = [top - distance * above for above in range(len(raised))][::-1]
    return [min(pair) for pair in zip(raised, ceilings, strict=True)]


def whole_epochs(axes: Axes, last: float) -> None:
    """Let the horizontal axis count epochs."""
    axes.set_xlim(0, last or 1)
    axes.xaxis.set_major_locator(MaxNLocator(nbins=6, integer=True, min_n_ticks=2))
    axes.grid(axis="x", visible=False)


def bucket_colors(count: int) -> list[str]:
    """Return a colour for each group of tokens, from low entropy to high.

    >>> bucket_colors(2)
    ['#4a1486', '#e8743b']
    """
    if count <= len(BUCKETS):
        return {1: [BUCKETS[0]], 2: [BUCKETS[0], BUCKETS[-1]]}.get(count, list(BUCKETS))
    shades: Any = LinearSegmentedColormap.from_list("buckets", BUCKETS)
    return [to_hex(shades(i / (count - 1))) for i in range(count)]


def _inline(text: str, alt: str) -> Markup:
    body = text[text.index("<svg") :]
    # Names of groups come again in the next figure; those that are referred to are hashes.
    body = re.sub(r'<g id="[^"]*"', "<g", body)
    body = re.sub(r'<svg [^>]*?viewBox="([^"]*)"[^>]*>', _root(alt), body, count=1)
    return Markup(re.sub(r"<metadata>.*?</metadata>", "", body, flags=re.S))


def _root(alt: str) -> str:
    label = escape(alt).replace("\\", r"\\")
    link = "http://www.w3.org/1999/xlink"
    return rf'<svg xmlns:xlink="{link}" viewBox="\1" role="img" aria-label="{label}">'
