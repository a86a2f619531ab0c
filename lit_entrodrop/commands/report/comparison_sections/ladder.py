"""Loss against the amount of training text: the ladder of the baseline, and the other arms."""

from collections.abc import Mapping
from itertools import cycle
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import NullLocator

from lit_entrodrop.commands.report.rendering import plotting

DISTANCE = 8  # of a name from its point, in points
LINE = 0.06  # height of a name, relative to the axes


def ladder_figure(
    comparison: Mapping[str, Any], folder: Path, name: str
) -> plotting.FigureHtml | None:
    """Draw the loss of the baseline over its training tokens, and what the arms are worth.

    There is no figure without a ladder.
    """
    ladder = comparison.get("ladder")
    if not ladder:
        return None

    def draw(canvas: plotting.Canvas) -> Figure:
        figure, [axes] = canvas.panels(1, 3.2)
        _draw(axes, ladder)
        axes.set_title(f"{comparison['split'].capitalize()} loss at the best epoch")
        return figure

    rungs = [f"{rung['mean']:.3f} on {rung['tokens']:,} tokens" for rung in ladder["rungs"]]
    arms = " ".join(arm["sentence"] for arm in ladder["arms"].values())
    caption = (
        f"Loss of {ladder['baseline']} on parts of the training text, mean over seeds; small dots "
        "are single seeds. An arrow leads from an arm to the amount of text with which the "
        "baseline has the same loss."
    )
    alt = f"Line chart. {ladder['baseline']}: {', '.join(rungs)}. {arms}"
    return plotting.render_figure(folder, name, draw, alt, caption)


def _draw(axes: Axes, ladder: Mapping[str, Any]) -> None:
    rungs = {rung["tokens"]: rung for rung in ladder["rungs"]}
    for tokens, rung in rungs.items():
        _draw_seeds(axes, tokens, rung["values"], plotting.MUTED)
    means = [rung["mean"] for rung in rungs.values()]
    axes.plot([*rungs], means, "o-", color=plotting.MUTED)
    place = next(tokens for tokens, rung in rungs.items() if rung["share"] == ladder["at"])
    colors = dict(zip(ladder["arms"], cycle(plotting.SERIES[1:]), strict=False))
    for name, arm in ladder["arms"].items():
        _draw_seeds(axes, place, arm["values"], colors[name])
        axes.plot(place, arm["mean"], "o", color=colors[name])
        if arm["multiplier"] is not None:
            end, arrow = place * arm["multiplier"], {"arrowstyle": "->", "color": colors[name]}
            axes.annotate("", (end, arm["mean"]), (place, arm["mean"]), arrowprops=arrow)
    axes.set_xscale("log")
    axes.xaxis.set_minor_locator(NullLocator())
    axes.set_xticks([*rungs], [f"{tokens:,}" for tokens in rungs])
    axes.set(xlabel="training tokens", ylabel="loss (nats per token)")
    axes.margins(x=0.15, y=0.2)
    bold = {"fontweight": "bold", "annotation_clip": False}
    first = min(rungs), means[0]
    plotting.write_near(
        axes, ladder["baseline"], first, (0, DISTANCE), color=plotting.MUTED, **bold
    )
    _write_names(axes, ladder["arms"], place, {n: {"color": c, **bold} for n, c in colors.items()})


def _write_names(
    axes: Axes, arms: Mapping[str, Any], place: float, styles: Mapping[str, Any]
) -> None:
    """Write the name and the multiplier of each arm to the left of its point, without overlap."""
    low, high = axes.get_ylim()
    ordered = sorted(arms, key=lambda name: arms[name]["mean"])
    means = [arms[name]["mean"] for name in ordered]
    heights = plotting.apart(means, (high - low) * LINE, high)
    for name, height in zip(ordered, heights, strict=True):
        found = arms[name]["multiplier"]
        text = name if found is None else f"{name} {found:.2f}×"
        beside = -DISTANCE, -DISTANCE / 2
        plotting.write_near(axes, text, (place, height), beside, ha="right", **styles[name])


def _draw_seeds(axes: Axes, place: int, values: list[float], color: str) -> None:
    axes.plot([place] * len(values), values, ".", color=color, alpha=0.5, markersize=4)
