"""Scores on a task: their figure, and outputs with the lowest scores."""

from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from lit_entrodrop.commands.report.records.run_record import RunRecord
from lit_entrodrop.commands.report.rendering import plotting
from lit_entrodrop.evaluation.statistics import score_interval
from lit_entrodrop.runs.task_scores import ItemScore, mean_score

SHOWN = 20  # items


def task_curve(run: RunRecord, folder: Path, name: str) -> plotting.FigureHtml | None:
    """Draw the mean score over epochs, with the interval over items."""
    if not run.task:
        return None
    epochs = list(run.task)
    means = [mean_score(scores) for scores in run.task.values()]
    counts = [len(scores) for scores in run.task.values()]
    ends = np.array([score_interval(*each) for each in zip(means, counts, strict=True)])

    def draw(canvas: plotting.Canvas) -> Figure:
        figure, [panel] = canvas.panels(1, 2.4)
        panel.fill_between(epochs, *(100 * ends.T), color=plotting.CLEAN, alpha=0.12, linewidth=0)
        panel.plot(epochs, 100 * np.array(means), "o-", color=plotting.CLEAN, markersize=4)
        panel.set(title="Mean score of the items", ylabel="%", xlabel="epoch", ylim=(-2, 102))
        plotting.whole_epochs(panel, run.evaluations.index[-1])
        return figure

    low, high = ends[-1]
    description = (
        f"Line chart. Mean score from {means[0]:.1%} to {means[-1]:.1%} at the end, 95% interval "
        f"{low:.1%} to {high:.1%}."
    )
    caption = (
        f"{means[-1]:.1%} at the end (95% interval {low:.1%} to {high:.1%}), {means[0]:.1%} at the "
        f"first evaluation, over {counts[-1]:,} items. Shaded: the interval, for similar items."
    )
    return plotting.render_figure(folder, name, draw, description, caption)


def answers(run: RunRecord) -> list[ItemScore]:
    """Return items of the last evaluation, those with the lowest scores first."""
    if not run.task:
        return []
    last = run.task[max(run.task)]
    return sorted(last, key=lambda item: item.score)[:SHOWN]
