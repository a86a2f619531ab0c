"""Preview as a page: one self-contained HTML file."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from lit_entrodrop import __version__
from lit_entrodrop.commands.preview.content import Preview
from lit_entrodrop.commands.preview.statistics import SplitStatistics
from lit_entrodrop.commands.preview.terminal import chunk_title, title_of
from lit_entrodrop.commands.preview.tokens import ShownToken
from lit_entrodrop.commands.report.rendering import plotting
from lit_entrodrop.commands.report.rendering.templating import environment
from lit_entrodrop.commands.report.run_sections.passages import entropy_shades, palette

PACKAGE = "lit_entrodrop.commands.preview"
BINS = 30
WEIGHT_SHADES = 5  # from excluded to nearly the full weight


def preview_page(preview: Preview) -> str:
    """Return the page of a preview."""
    tokens = [token for block in preview.blocks for chunk in block.chunks for token in chunk.tokens]
    shades, scale = entropy_shades(np.array([token.entropy for token in tokens]))
    shade = iter(shades.tolist())
    return (
        environment(PACKAGE)
        .get_template("preview.html.j2")
        .render(
            preview=preview,
            version=__version__,
            statistics=preview.statistics,
            rows=list(zip(*(each.rows() for each in preview.statistics), strict=True)),
            lengths=length_histograms(preview.statistics),
            blocks=[
                {
                    "title": title_of(block),
                    "padding": block.padding,
                    "chunks": [
                        {
                            "title": chunk_title(chunk),
                            "tokens": [(each, classes(each, next(shade))) for each in chunk.tokens],
                        }
                        for chunk in block.chunks
                    ],
                }
                for block in preview.blocks
            ],
            tooltip=tooltip,
            scale=scale if np.isfinite([token.entropy for token in tokens]).any() else [],
            palette={name: color for name, color in palette().items() if name[0] == "e"},
        )
    )


def classes(token: ShownToken, shade: int) -> str:
    """Return the CSS classes of a token.

    >>> classes(ShownToken(3, "a", "a", counts=True, special=False, change="dropped"), 2)
    't counts dropped e2'
    """
    found = ["t", "counts" if token.counts else "uncounted"]
    found += ["special"] if token.special else []
    found += [token.change] if token.change else []
    if token.counts and token.weight < 1:
        found.append(f"w{min(int(token.weight * WEIGHT_SHADES), WEIGHT_SHADES - 1)}")
    elif token.weight > 1:
        found.append("more")
    return " ".join([*found, f"e{shade}" if shade >= 0 else "ex"])


def tooltip(token: ShownToken) -> str:
    """Return all that is known of a token, in one line.

    >>> tooltip(ShownToken(3, "a", "Ġa", counts=True, special=False, entropy=1.5))
    'id 3 · Ġa · counts in the loss · entropy 1.50 nats'
    """
    parts = [f"id {token.token_id}", token.name.replace("\n", "")]
    parts += ["special token"] if token.special else []
    parts.append("counts in the loss" if token.counts else "does not count in the loss")
    if np.isfinite(token.entropy):
        parts.append(f"entropy {token.entropy:.2f} nats")
    return " · ".join([*parts, *token.remarks])


def length_histograms(statistics: Sequence[SplitStatistics]) -> plotting.FigureHtml:
    """Draw the lengths of the documents of each split."""

    def draw(canvas: plotting.Canvas) -> Figure:
        figure, axes = canvas.panels(len(statistics), height=2.3)
        for panel, each in zip(axes, statistics, strict=True):
            _draw_lengths(panel, each)
        return figure

    medians = ", ".join(f"{each.name} {np.median(each.lengths):,.0f}" for each in statistics)
    return plotting.render_figure(
        None,
        "lengths",
        draw,
        f"Histograms of document lengths. Median tokens: {medians}.",
        "Length of the documents in tokens. Dotted line: the size of a block; longer documents "
        "are cut.",
    )


def _draw_lengths(axes: Any, each: SplitStatistics) -> None:
    size = each.split.blocks.block_size
    low, high = max(1, int(each.lengths.min())), max(int(each.lengths.max()), size) + 1
    edges = np.unique(np.geomspace(low, high, BINS + 1).round().astype(int))
    axes.hist(each.lengths, bins=edges, color=plotting.CLEAN)
    axes.axvline(size, color=plotting.MUTED, linewidth=1, linestyle=":")
    axes.set_xscale("log")
    axes.xaxis.set_major_formatter("{x:,.0f}")
    axes.set(title=each.name, xlabel="tokens", ylabel="documents")
    axes.grid(axis="x", visible=False)
