"""Figure of regularizer strength, drop rate, learning rate and weight decay over training."""

from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from lit_entrodrop.commands.report.records.run_record import RunRecord
from lit_entrodrop.commands.report.rendering import plotting

STRENGTH, RATE = "/strength", "/drop_rate"
# Schedules of the optimizer, by the column of the log.
OPTIMIZER = {"learning_rate": "learning rate", "weight_decay": "weight decay"}


def regularizers_of(run: RunRecord) -> list[str]:
    """Return the names of the regularizers that logged a strength or a drop rate."""
    names = {
        column.rpartition("/")[0] for column in run.training if column.endswith((STRENGTH, RATE))
    }
    return sorted(names)


def schedule(run: RunRecord, folder: Path, name: str) -> plotting.FigureHtml | None:
    """Draw each regularizer's strength and drop rate, learning rate and scheduled weight decay."""
    names = regularizers_of(run)
    scheduled = {c: run.training[c].dropna() for c in OPTIMIZER if c in run.training}
    if not names and not scheduled:
        return None

    def draw(canvas: plotting.Canvas) -> Figure:
        figure, panels = canvas.panels(len(names) + len(scheduled), 2.3)
        last = run.evaluations.index[-1]
        for panel, regularizer in zip(panels, names, strict=False):
            plotting.whole_epochs(panel, last)
            _draw_regularizer(panel, run, regularizer, last)
        for panel, (column, line) in zip(panels[len(names) :], scheduled.items(), strict=False):
            panel.plot(line.index, line, color=plotting.INK)
            panel.set(title=OPTIMIZER[column].capitalize(), ylim=(0, None))
            panel.yaxis.set_major_formatter("{x:g}")
            plotting.whole_epochs(panel, last)
        for panel in panels:
            panel.set_xlabel("epoch")
        return figure

    parts = [
        f"{regularizer}: {run.training[c].dropna().iloc[-1]:.3f} {what} at the end"
        for regularizer in names
        for what, c in (("strength", regularizer + STRENGTH), ("drop rate", regularizer + RATE))
        if c in run.training and len(run.training[c].dropna())
    ]
    parts += [
        f"{OPTIMIZER[column]}: {line.max():.3g} at most, {line.iloc[-1]:.3g} at the end"
        for column, line in scheduled.items()
    ]
    caption = (
        "Strength: target set by the curriculum. Drop rate: share of eligible tokens, "
        "which are neither special nor padding, that were dropped."
        if names
        else "No regularizer logged a strength or a drop rate."
    )
    return plotting.render_figure(
        folder, name, draw, f"Line charts over epochs. {'; '.join(parts)}.", caption
    )


def _draw_regularizer(panel: Axes, run: RunRecord, regularizer: str, last: float) -> None:
    ends = []
    for ending, label, color in (
        (STRENGTH, "strength", plotting.CLEAN),
        (RATE, "drop rate", plotting.VALIDATION),
    ):
        if regularizer + ending not in run.training:
            continue
        line = run.training[regularizer + ending].dropna()
        if len(line):
            panel.plot(line.index, line, color=color)
            ends.append((line.iloc[-1], label, color))
    panel.set(
        title="".join(word.capitalize() for word in regularizer.split("_")),
        ylim=(0, max(1.0, *(1.05 * y for y, _, _ in ends))),
    )
    plotting.label_ends(panel, ends, last)
