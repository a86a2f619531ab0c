"""Figures of the page: one drawing for wide screens and paper, one for phones."""

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from html import escape
from io import BytesIO, StringIO
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

from lit_entrodrop.runs.writing import write_whole

INK, MUTED, RULE = "#1b1f24", "#5b6570", "#d9dee3"
# Palette of Okabe and Ito, safe for color blindness.
TRAIN, CLEAN, VALIDATION, AVERAGED = "#8a939c", "#0072b2", "#d55e00", "#009e73"
# From dark for low entropy to bright for high, an order that survives gray printing.
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
    # A name with two dollar signs is not a formula.
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
class Canvas:
    """Size and layout of a drawing: narrow for a phone, or wide."""

    narrow: bool

    @property
    def width(self) -> float:
        """Width of the drawing in inches."""
        return NARROW if self.narrow else WIDE

    def panels(self, count: int, height: float, most: int = 4) -> tuple[Figure, list[Axes]]:
        """Lay out panels of a height in inches, at most `most` in a row."""
        # A single panel takes half of the width, enough for a curve over a few epochs.
        columns = 1 if self.narrow else min(max(count, 2), most)
        rows = -(-count // columns)
        layout = ConstrainedLayoutEngine(w_pad=0.1, h_pad=0.08)
        figure = Figure(figsize=(self.width, rows * height + 0.35), layout=layout)
        axes = list(figure.subplots(rows, columns, squeeze=False).flat)
        for spare in axes[count:]:
            spare.remove()
        return figure, axes[:count]


@dataclass(frozen=True)
class FigureHtml:
    """A figure of the page as SVG, wide and narrow, and its caption."""

    caption: str
    wide: Markup
    narrow: Markup


def render_figure(
    folder: Path | None, name: str, draw: Callable[[Canvas], Figure], alt: str, caption: str
) -> FigureHtml:
    """Draw a figure with a text alternative, and write ``name.svg`` and ``name.png`` to a folder.

    Without a folder, no file is written.
    """
    with matplotlib.rc_context(STYLE):
        wide, small = (_laid_out(draw(Canvas(narrow))) for narrow in (False, True))
        if folder is not None:
            wide.savefig(png := BytesIO(), dpi=150, format="png")
            write_whole(folder / f"{name}.png", png.getvalue())
        text, narrow = svg(wide, name), svg(small, f"{name}-narrow")
        if folder is not None:
            write_whole(folder / f"{name}.svg", text)
    return FigureHtml(caption, _inline(text, alt), _inline(narrow, alt))


def _laid_out(figure: Figure) -> Figure:
    """Compute the layout of a figure, for which each `savefig` would draw it once more."""
    if engine := figure.get_layout_engine():
        engine.execute(figure)
        figure.set_layout_engine(None)
    return figure


def svg(figure: Figure, salt: str) -> str:
    """Return a figure as SVG; equal figures and salts give equal text."""
    file = StringIO()
    without = dict.fromkeys(("Creator", "Date", "Format", "Type"))
    with matplotlib.rc_context({"svg.hashsalt": salt}):
        figure.savefig(file, format="svg", metadata=without)
    return file.getvalue().replace("'DejaVu Sans'", FONTS)


def legend(figure: Figure, lines: Mapping[str, Any]) -> None:
    """Add one legend above all panels: unlike labels of matplotlib, a name may begin with ``_``."""
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
    """Write names to the right of the ends of lines at x, without overlap.

    Args:
        axes: Axes with its limits set.
        ends: Height, name and color of each line.
        x: Horizontal position of the ends.
    """
    low, high = axes.get_ylim()
    rows = axes.get_subplotspec().get_gridspec().nrows
    height = axes.figure.get_figheight() / rows * 0.75
    ordered = sorted(ends)
    places = apart([y for y, _, _ in ordered], (high - low) * 0.16 / height, high)
    for y, (_, name, color) in zip(places, ordered, strict=True):
        style = {"color": color, "va": "center", "fontweight": "bold"}
        write_near(axes, name, (x, y), (6, 0), annotation_clip=False, **style)


def write_near(
    axes: Axes, text: str, place: tuple[float, float], offset: tuple[float, float], **style: Any
) -> None:
    """Write at a distance in points from a place."""
    axes.annotate(text, place, xytext=offset, textcoords="offset points", **style)


def apart(heights: list[float], distance: float, top: float) -> list[float]:
    """Move heights, sorted from low to high, until neighbors have a distance.

    >>> apart([0.0, 0.5, 4.0], distance=1.0, top=4.0), apart([3.5, 4.0], distance=1.0, top=4.0)
    ([0.0, 1.0, 4.0], [3.0, 4.0])
    """
    raised = list(accumulate(heights, lambda below, y: max(y, below + distance)))
    ceilings = [top - distance * above for above in range(len(raised))][::-1]
    return [min(pair) for pair in zip(raised, ceilings, strict=True)]


def whole_epochs(axes: Axes, last: float) -> None:
    """Scale the horizontal axis to whole epochs."""
    axes.set_xlim(0, last or 1)
    axes.xaxis.set_major_locator(MaxNLocator(nbins=6, integer=True, min_n_ticks=2))
    axes.grid(axis="x", visible=False)


def bucket_colors(count: int) -> list[str]:
    """Return a color for each entropy bucket, from low entropy to high.

    >>> bucket_colors(2)
    ['#4a1486', '#e8743b']
    """
    if count <= len(BUCKETS):
        return list([(), BUCKETS[:1], BUCKETS[::2], BUCKETS][count])
    shades: Any = LinearSegmentedColormap.from_list("buckets", BUCKETS)
    return [to_hex(shades(i / (count - 1))) for i in range(count)]


def _inline(text: str, alt: str) -> Markup:
    body = text[text.index("<svg") :]
    # Group names repeat in the next figure; identifiers that are referenced are hashes.
    body = re.sub(r'<g id="[^"]*"', "<g", body)
    label, link = escape(alt).replace("\\", r"\\"), "http://www.w3.org/1999/xlink"
    root = rf'<svg xmlns:xlink="{link}" viewBox="\1" role="img" aria-label="{label}">'
    body = re.sub(r'<svg [^>]*?viewBox="([^"]*)"[^>]*>', root, body, count=1)
    return Markup(re.sub(r"<metadata>.*?</metadata>", "", body, flags=re.S))
