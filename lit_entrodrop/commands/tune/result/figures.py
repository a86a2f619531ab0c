"""Figures of a search: progress, losses by setting, and importances."""

from collections.abc import Mapping, Sequence
from itertools import accumulate
from math import inf
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, MaxNLocator, NullFormatter

from lit_entrodrop.commands.report.rendering import plotting
from lit_entrodrop.commands.tune.search.outcome import TrialOutcome
from lit_entrodrop.commands.tune.space.sample import PLAIN

MOST_SETTINGS = 6
# Losses of failed ideas would hide the differences between good ones.
SHOWN_SPREAD = 3.0


def colors(trials: Sequence[TrialOutcome]) -> dict[str, str]:
    """Return a color for each method, gray for plain fine-tuning."""
    labels = dict.fromkeys((PLAIN, *(trial.sample.first for trial in trials)))
    series = plotting.SERIES
    return {label: series[place % len(series)] for place, label in enumerate(labels)}


def progress(trials: Sequence[TrialOutcome], folder: Path) -> plotting.FigureHtml:
    """Draw the loss of each trial and the best loss so far, of both studies."""
    found = {
        PLAIN: [trial for trial in _scored(trials) if trial.study == PLAIN],
        "whole space": [trial for trial in _scored(trials) if trial.study != PLAIN],
    }

    def draw(canvas: plotting.Canvas) -> Figure:
        figure, [axes] = canvas.panels(1, 2.8)
        lines = {}
        for (name, own), color in zip(found.items(), plotting.SERIES, strict=False):
            numbers = [trial.number + 1 for trial in own]
            scores = [trial.score or 0.0 for trial in own]
            axes.plot(numbers, scores, ".", color=color, alpha=0.5)
            best = list(accumulate(map(_final_score, own), min))
            lines[name] = axes.step(numbers, best, where="post", color=color)[0]
        _limit(axes, trials)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.set(xlabel="trial", ylabel="best loss (nats per token)")
        plotting.legend(figure, lines)
        return figure

    alt = "; ".join(
        f"{name}: {min(map(_final_score, own), default=float('nan')):.3f}"
        for name, own in found.items()
    )
    caption = (
        "Validation loss at the best epoch of each trial (points), and the lowest so far (lines). "
        "The lowest of many trials looks better than it is, so the final runs have new seeds."
    )
    return plotting.render_figure(folder, "search", draw, f"Progress of the search. {alt}", caption)


def by_setting(trials: Sequence[TrialOutcome], folder: Path) -> plotting.FigureHtml | None:
    """Draw the loss of each trial against each number that all trials set; None without any."""
    scored = _scored(trials)
    shared = [
        name
        for name in (scored[0].sample.plain if scored else {})
        if all(isinstance(trial.sample.plain.get(name), int | float) for trial in scored)
    ][:MOST_SETTINGS]
    if not shared:
        return None

    def draw(canvas: plotting.Canvas) -> Figure:
        figure, panels = canvas.panels(len(shared), 2.6, most=3)
        lines = {}
        for panel, name in zip(panels, shared, strict=True):
            for label, color in colors(scored).items():
                own = [trial for trial in scored if trial.sample.first == label]
                values = [trial.sample.plain[name] for trial in own]
                losses = [trial.score or 0.0 for trial in own]
                lines[label] = panel.plot(values, losses, ".", color=color, markersize=7)[0]
            values = [trial.sample.plain[name] for trial in scored]
            if min(values) > 0 and max(values) > 8 * min(values):
                panel.set_xscale("log")
                panel.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
                # Numbers, as names with dollar signs are not read as formulas.
                panel.xaxis.set_major_formatter("{x:g}")
                panel.xaxis.set_minor_formatter(NullFormatter())
            elif all(isinstance(value, int) for value in values):
                panel.xaxis.set_major_locator(MaxNLocator(integer=True))
            panel.set_title(name.rpartition(".")[2])
            _limit(panel, trials)
        panels[0].set_ylabel("best loss")
        plotting.legend(figure, lines)
        return figure

    caption = (
        "Validation loss at the best epoch of each trial, against the settings of all trials. "
        "Colors: the method, without averages."
    )
    alt = f"Loss against {', '.join(shared)}."
    return plotting.render_figure(folder, "settings", draw, alt, caption)


def importances(found: Mapping[str, float], folder: Path) -> plotting.FigureHtml | None:
    """Draw the importance of each setting; None if there is none."""
    if not found:
        return None
    ordered = sorted(found.items(), key=lambda item: item[1])

    def draw(canvas: plotting.Canvas) -> Figure:
        figure, [axes] = canvas.panels(1, 0.3 * len(ordered) + 0.5)
        names = [name.rpartition(".")[2] for name, _ in ordered]
        axes.barh(names, [value for _, value in ordered], color=plotting.CLEAN)
        axes.set_xlabel("share of the importance")
        axes.grid(axis="y", visible=False)
        return figure

    caption = (
        "How much each setting decides whether a trial is among the best 30% (PED-ANOVA), in the "
        "search of the whole space. With few trials, this is a rough guide."
    )
    alt = "Importances: " + ", ".join(f"{name} {value:.0%}" for name, value in ordered[::-1])
    return plotting.render_figure(folder, "importances", draw, alt, caption)


def _scored(trials: Sequence[TrialOutcome]) -> list[TrialOutcome]:
    return [trial for trial in trials if trial.score is not None]


def _final_score(trial: TrialOutcome) -> float:
    """Return the score of a trial, infinite if it was stopped or diverged: it cannot win."""
    return trial.score if trial.state == "finished" and trial.score is not None else inf


def _limit(axes: Axes, trials: Sequence[TrialOutcome]) -> None:
    losses: list[Any] = sorted(trial.score for trial in _scored(trials) if trial.score is not None)
    if losses:
        low, middle = losses[0], losses[len(losses) // 2]
        spread = max(middle - low, 1e-3)
        axes.set_ylim(
            low - 0.3 * spread, min(losses[-1], low + SHOWN_SPREAD * spread) + 0.3 * spread
        )
