"""Loss against a setting whose values were tried, a panel for each arm."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, NullLocator

from lit_entrodrop.commands.report.rendering import plotting
from lit_entrodrop.commands.report.rendering.formatting import LOSS
from lit_entrodrop.evaluation.statistics import Estimate, paired_over_seeds

FEWEST = 3  # values from which a curve is drawn
WIDE_RANGE = 10  # ratio of the highest to the lowest value from which the axis is logarithmic


@dataclass(frozen=True)
class Sweep:
    """Differences of the validation loss from the baseline, by the value of a setting.

    Args:
        setting: Short name of the setting.
        points: Difference at each value, in nats per token, in ascending order of the values.
        chosen: Value that was selected.
    """

    setting: str
    points: Mapping[float, Estimate]
    chosen: float


def sweep_figure(
    comparison: Mapping[str, Any], folder: Path, name: str
) -> plotting.FigureHtml | None:
    """Draw the sweep of each arm that tried at least three values of a number; None without one."""
    sweeps = sweeps_of(comparison)
    if not sweeps:
        return None
    baseline = comparison["baseline"]

    def draw(canvas: plotting.Canvas) -> Figure:
        figure, panels = canvas.panels(len(sweeps), 2.0, most=3)
        for panel, (arm, sweep) in zip(panels, sweeps.items(), strict=True):
            panel.sharey(panels[0])
            _draw_panel(panel, sweep)
            panel.set_ylabel(f"loss minus {baseline}")
            panel.label_outer()
            panel.tick_params(labelbottom=True)
            panel.set(title=arm, xlabel=sweep.setting)
        return figure

    described = "; ".join(
        f"{arm} at {sweep.setting} {value:g}: {found.difference:+.3f}"
        for arm, sweep in sweeps.items()
        for value, found in sweep.points.items()
    )
    caption = (
        f"Validation loss at the best epoch minus that of {baseline}, in nats per token, against "
        "the setting that was varied; below the line is better. Bars are 95% intervals over seeds. "
        "The filled point is the selected value."
    )
    return plotting.render_figure(folder, name, draw, f"Line plots. {described}.", caption)


def sweeps_of(comparison: Mapping[str, Any]) -> dict[str, Sweep]:
    """Return the sweep of each arm that has one: differences over the seeds of the selection."""
    name = comparison["baseline"]
    baseline = _losses(comparison, name).get(_value(comparison["arms"][name]["strength"]), {})
    sweeps = {}
    for arm, content in comparison["arms"].items():
        points = {
            value: _difference(by_seed, baseline)
            for value, by_seed in _losses(comparison, arm).items()
            if value is not None and by_seed.keys() == baseline.keys()
        }
        chosen = _value(content["strength"])
        if len(points) >= FEWEST and chosen in points:
            [setting] = content["strength"]
            short = setting.removeprefix("model.").replace(".init_args", "")
            sweeps[arm] = Sweep(short, dict(sorted(points.items())), chosen)
    return sweeps


def _losses(comparison: Mapping[str, Any], arm: str) -> dict[float | None, dict[int, float]]:
    """Return the best validation loss of each run on the whole text, by value and seed."""
    losses: dict[float | None, dict[int, float]] = {}
    for run in comparison.get("runs", []):
        is_whole = run["arm"] == arm and run.get("share", 1) == 1
        if is_whole and run["seed"] in comparison["strength_seeds"] and LOSS in run["validation"]:
            by_seed = losses.setdefault(_value(run["strength"]), {})
            by_seed[run["seed"]] = run["validation"][LOSS]
    return losses


def _value(strength: Mapping[str, Any]) -> float | None:
    """Return the only value of a strength; None unless that is a number."""
    values = [*strength.values()]
    is_number = len(values) == 1 and type(values[0]) in (int, float)
    return values[0] if is_number else None


def _difference(by_seed: Mapping[int, float], baseline: Mapping[int, float]) -> Estimate:
    values, others = [*by_seed.values()], [baseline[seed] for seed in by_seed]
    if len(values) == 1:
        return Estimate(values[0] - others[0])
    return paired_over_seeds(values, others)


def _draw_panel(axes: Axes, sweep: Sweep) -> None:
    values, found = [*sweep.points], [*sweep.points.values()]
    heights = [each.difference for each in found]
    reach = [0.0 if each.high is None else each.high - each.difference for each in found]
    axes.axhline(0, color=plotting.INK, linewidth=1)
    style: dict[str, Any] = {
        "color": plotting.CLEAN,
        "markerfacecolor": "white",
        "capsize": 2,
        "elinewidth": 1.2,
    }
    axes.errorbar(values, heights, reach, fmt="o-", **style)
    selected = sweep.points[sweep.chosen].difference
    axes.plot(sweep.chosen, selected, "o", color=plotting.CLEAN, markersize=8, zorder=3)
    if values[0] > 0 and values[-1] >= WIDE_RANGE * values[0]:
        axes.set_xscale("log")
        axes.xaxis.set_minor_locator(NullLocator())
    axes.set_xticks(values, [f"{value:g}".replace("-", "−") for value in values])
    axes.yaxis.set_major_locator(MaxNLocator(nbins=5))
    axes.margins(x=0.08)
