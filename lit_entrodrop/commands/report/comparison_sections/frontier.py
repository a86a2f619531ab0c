"""Loss against forgetting, one point per arm."""

from collections.abc import Mapping, Sequence
from itertools import cycle
from pathlib import Path
from typing import Any, NamedTuple

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from lit_entrodrop.commands.report.rendering import plotting
from lit_entrodrop.evaluation.statistics import Estimate, paired_over_seeds

POINTS_PER_INCH = 72
# In points: distance of a name from its point and from the next name, and width of a letter.
DISTANCE, LINE, LETTER = 6, 12, 7
MOMENTS = {"best": "best epoch", "last": "last epoch"}


class Point(NamedTuple):
    """Forgetting and loss of an arm, in nats per token."""

    forgetting: Estimate
    loss: Estimate


def frontier(comparison: Mapping[str, Any], folder: Path, name: str) -> plotting.FigureHtml | None:
    """Draw each arm by its forgetting and its loss, a panel for the best and for the last epoch.

    There is no figure if fewer than two arms measured forgetting.
    """
    panels_of = {
        title: points
        for moment, title in MOMENTS.items()
        if len(points := points_of(comparison["arms"], moment)) > 1
    }
    if not panels_of:
        return None

    def draw(canvas: plotting.Canvas) -> Figure:
        figure, panels = canvas.panels(len(panels_of), 3.0, most=2)
        for panel, (title, points) in zip(panels, panels_of.items(), strict=True):
            _draw_panel(panel, points)
            panel.set_title(f"{comparison['split'].capitalize()} loss at the {title}")
        return figure

    description = "; ".join(
        f"{arm} at the {title}: forgetting {forgetting.difference:+.3f}, loss {loss.difference:.3f}"
        for title, points in panels_of.items()
        for arm, (forgetting, loss) in points.items()
    )
    caption = (
        "Loss against forgetting, the rise of the loss on general text since before training; "
        "lower left is better. Bars are 95% intervals over seeds. The line joins the arms that no "
        "other arm beats in both."
    )
    return plotting.render_figure(folder, name, draw, f"Scatter plot. {description}.", caption)


def points_of(arms: Mapping[str, Any], moment: str) -> dict[str, Point]:
    """Return the point of each arm that measured forgetting, at the best or at the last epoch.

    >>> metrics = {"best/loss": {"values": [3.0]}, "best/forgetting": {"values": [0.5]}}
    >>> points_of({"plain": {"metrics": metrics}}, "best")["plain"].forgetting.difference
    0.5
    """
    names = f"{moment}/forgetting", f"{moment}/loss"
    measured = {arm: content["metrics"] for arm, content in arms.items()}
    return {
        arm: Point(*(_over_seeds(metrics[name]["values"]) for name in names))
        for arm, metrics in measured.items()
        if all(name in metrics for name in names)
    }


def unbeaten(points: Sequence[Point]) -> list[Point]:
    """Return the points that no other is below in both values, by increasing forgetting.

    >>> points = [Point(Estimate(x), Estimate(y)) for x, y in [(0.5, 3.0), (0.6, 3.1), (0.1, 3.2)]]
    >>> [point.loss.difference for point in unbeaten(points)]
    [3.2, 3.0]
    """
    kept: list[Point] = []
    for point in sorted(points, key=lambda each: [value.difference for value in each]):
        if not kept or point.loss.difference < kept[-1].loss.difference:
            kept.append(point)
    return kept


def _over_seeds(values: Sequence[float]) -> Estimate:
    """Estimate a mean: its difference from zero."""
    if len(values) == 1:
        return Estimate(values[0])
    return paired_over_seeds(values, [0.0] * len(values))


def _draw_panel(axes: Axes, points: Mapping[str, Point]) -> None:
    line = [
        (point.forgetting.difference, point.loss.difference)
        for point in unbeaten([*points.values()])
    ]
    axes.plot(*zip(*line, strict=True), color=plotting.RULE, linewidth=3)
    colors = dict(zip(points, cycle(plotting.SERIES), strict=False))
    for arm, (forgetting, loss) in points.items():
        place = forgetting.difference, loss.difference
        axes.errorbar(*place, _reach(loss), _reach(forgetting), "o", color=colors[arm])
    axes.set(xlabel="forgetting (nats per token)", ylabel="loss (nats per token)")
    axes.margins(x=0.25, y=0.15)
    _write_names(axes, points, colors)


def _write_names(axes: Axes, points: Mapping[str, Point], colors: Mapping[str, str]) -> None:
    """Write the name of each arm beside its point."""
    places = {arm: (x.difference, y.difference) for arm, (x, y) in points.items()}
    axes.autoscale_view()  # the limits must be known
    figure = axes.get_figure(root=True)
    assert figure is not None, "the axes are drawn in one"
    scale = POINTS_PER_INCH / figure.dpi
    spans = [
        (x * scale, x * scale + LETTER * len(arm), y * scale)
        for arm, (x, y) in zip(places, axes.transData.transform([*places.values()]), strict=True)
    ]
    for (arm, place), span, height in zip(places.items(), spans, raised(spans), strict=True):
        offset = DISTANCE, DISTANCE + height - span[2]
        plotting.write_near(axes, arm, place, offset, color=colors[arm], fontweight="bold")


def raised(spans: Sequence[tuple[float, float, float]]) -> list[float]:
    """Move texts up that would overlap a lower one; return the height of each, in points.

    Args:
        spans: Left end, right end and height of each text, in points.

    >>> raised([(0, 40, 5), (30, 70, 8), (100, 140, 5)])
    [5, 17, 5]
    """
    heights = [height for *_, height in spans]
    placed: list[int] = []
    for number in sorted(range(len(spans)), key=heights.__getitem__):
        left, right, _ = spans[number]
        for other in sorted(placed, key=heights.__getitem__):
            beside = spans[other][1] <= left or right <= spans[other][0]
            if not beside and heights[number] - heights[other] < LINE:
                heights[number] = heights[other] + LINE
        placed.append(number)
    return heights


def _reach(found: Estimate) -> float | None:
    return None if found.high is None else found.high - found.difference
