"""Figures of losses over epochs."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from lit_entrodrop.commands.report.records.run_record import RunRecord
from lit_entrodrop.commands.report.rendering import plotting
from lit_entrodrop.runs.metric_name import AVERAGED

VALIDATION_LOSS = "validation loss"


def loss_curves(run: RunRecord, folder: Path, name: str) -> plotting.FigureHtml:
    """Draw training, clean training and validation loss, a panel for each group of tokens."""

    def draw(canvas: plotting.Canvas) -> Figure:
        figure, panels = canvas.panels(len(run.groups()), 2.5)
        named: dict[str, Any] = {}
        for panel, (bucket, title) in zip(panels, run.groups().items(), strict=True):
            lines = _lines(run, bucket)
            for label, (line, style) in lines.items():
                [drawn] = panel.plot(line.index, line, **style)
                named.setdefault(label, drawn)
            panel.set(title=title, ylim=_span([line for line, _ in lines.values()]), xlabel="epoch")
            plotting.whole_epochs(panel, run.evaluations.index[-1])
            _mark(panel, run, bucket, lines[VALIDATION_LOSS][0])
        panels[0].set_ylabel("loss (nats per token)")
        plotting.legend(figure, named)
        return figure

    caption = "Dot: lowest validation loss. Each panel has its own vertical scale."
    if run.diagnosis and run.diagnosis.overfits:
        caption += " Dashed line: onset of overfitting. Shaded: 95% interval of the best epoch."
    if run.diagnosis and run.diagnosis.epoch_drops:
        drop = run.diagnosis.epoch_drops.mean
        caption += (
            f" From the end of an epoch to the start of the next, the training loss changes by "
            f"{-drop:+.3f} nats per token on average; a drop means that text is recognized."
        ).replace("-0", "−0")
    return plotting.render_figure(folder, name, draw, _description(run), caption)


def rises_and_gaps(run: RunRecord, folder: Path, name: str) -> plotting.FigureHtml:
    """Draw the rise of the validation loss above its lowest, and its gap to the training loss."""
    gaps = {bucket: run.curve("gap", "loss", bucket) for bucket in run.groups()}
    losses = {bucket: run.curve("val", "loss", bucket) for bucket in run.groups()}
    rises = {bucket: curve - curve.min() for bucket, curve in losses.items()}
    panels_of = {"Validation loss above its lowest": rises}
    if any(len(gap) for gap in gaps.values()):
        panels_of["Validation loss − clean training loss"] = gaps

    def draw(canvas: plotting.Canvas) -> Figure:
        figure, panels = canvas.panels(len(panels_of), 2.8)
        for panel, (title, curves) in zip(panels, panels_of.items(), strict=True):
            panel.set_title(title)
            _by_bucket(panel, run, curves)
            if curves is rises:
                _look_at_rise(panel, rises)
            _name_ends(panel, run, curves)
        return figure

    description = "; ".join(
        f"{title}, at the end: "
        + ", ".join(f"{run.groups()[b]} {c.iloc[-1]:+.3f}" for b, c in curves.items() if len(c))
        for title, curves in panels_of.items()
    )
    caption = (
        "Rise above the lowest loss of each group of tokens: the cost of overfitting on new text. "
        "The fall before it is cut off."
    )
    if len(panels_of) > 1:
        caption += " Gap to the training loss: how much better the model knows its training text."
    return plotting.render_figure(
        folder, name, draw, f"Line charts, nats per token. {description}.", caption
    )


def side_by_side(runs: list[RunRecord], folder: Path, name: str) -> plotting.FigureHtml:
    """Draw the validation losses of several runs, a panel for each group of tokens."""
    titles = max((run.titles() for run in runs), key=len)
    known = {bucket for run in runs for bucket in run.groups()}
    curves = {
        title: {run.name: run.curve("val", "loss", bucket) for run in runs}
        for bucket, title in titles.items()
        if bucket in known
    }
    return _lines_by_group(curves, "run", "validation loss", folder, name)


def set_curves(run: RunRecord, folder: Path, name: str) -> plotting.FigureHtml | None:
    """Draw the losses of validation and of the evaluation sets, if there are any."""
    if not run.of_sets:
        return None
    splits = {"validation": "val", **{name: name for name in run.of_sets}}
    curves = {
        title: {label: run.curve(split, "loss", bucket) for label, split in splits.items()}
        for bucket, title in run.groups().items()
    }
    return _lines_by_group(curves, "set", "loss", folder, name)


def _lines_by_group(
    curves: dict[str, dict[str, pd.Series]], each: str, loss: str, folder: Path, name: str
) -> plotting.FigureHtml:
    """Draw a panel for each group of tokens, by title, with a line for each run or set, by name."""
    whole = next(iter(curves.values()))
    last = max(curve.index[-1] for curve in whole.values() if len(curve))

    def draw(canvas: plotting.Canvas) -> Figure:
        figure, panels = canvas.panels(len(curves), 2.6)
        named: dict[str, Any] = {}
        for panel, (title, lines) in zip(panels, curves.items(), strict=True):
            for i, (line, curve) in enumerate(lines.items()):
                color = plotting.SERIES[i % len(plotting.SERIES)]
                style = "-" if i < len(plotting.SERIES) else "--"
                [drawn] = panel.plot(curve.index, curve, style, color=color)
                named.setdefault(line, drawn)
                trained = _trained(curve)
                if len(trained):
                    panel.plot(trained.idxmin(), trained.min(), "o", color=color, markersize=5)
            panel.set(title=title, xlabel="epoch", ylim=_span(list(lines.values())))
            plotting.whole_epochs(panel, last)
        panels[0].set_ylabel(f"{loss} (nats per token)")
        plotting.legend(figure, named)
        return figure

    lowest = ", ".join(f"{line} {_trained(curve).min():.3f}" for line, curve in whole.items())
    caption = (
        f"Dot: lowest loss of each {each} since training began. The high losses at the start are "
        "cut off. Each panel has its own vertical scale."
    )
    description = f"Line charts of the {loss} of each {each}. Lowest, all tokens: {lowest}."
    return plotting.render_figure(folder, name, draw, description, caption)


def _trained(curve: pd.Series) -> pd.Series:
    # No checkpoint has the untrained model.
    return curve[curve.index > 0] if curve.index.max() > 0 else curve


def _lines(run: RunRecord, bucket: str | None) -> dict[str, tuple[pd.Series, dict[str, Any]]]:
    lines: dict[str, tuple[pd.Series, dict[str, Any]]] = {}
    if bucket is None:
        trained = run.training["train/loss"] if len(run.training) else pd.Series(dtype=float)
        lines["training loss, as optimized"] = trained, {"color": plotting.TRAIN, "linewidth": 1.2}
    lines["clean training loss"] = (
        run.curve("clean_train", "loss", bucket),
        {"color": plotting.CLEAN},
    )
    lines[VALIDATION_LOSS] = (
        run.curve("val", "loss", bucket),
        {"color": plotting.VALIDATION, "linewidth": 2.3},
    )
    lines["validation loss, averaged weights"] = (
        run.curve(f"val{AVERAGED}", "loss", bucket),
        {"color": plotting.AVERAGED, "linestyle": "--"},
    )
    return {name: pair for name, pair in lines.items() if len(pair[0]) or name == VALIDATION_LOSS}


def _span(curves: list[pd.Series]) -> tuple[float, float]:
    # The loss before the first epoch is far above all others and would flatten the curves.
    values = pd.concat([c[c.index >= min(1.0, c.index[-1])] for c in curves if len(c)])
    margin = 0.1 * (values.max() - values.min()) or 0.1
    return values.min() - margin, values.max() + margin


def _mark(panel: Axes, run: RunRecord, bucket: str | None, validation: pd.Series) -> None:
    panel.plot(validation.idxmin(), validation.min(), "o", color=plotting.VALIDATION, markersize=5)
    verdict = run.verdict(bucket)
    if verdict is None or not verdict.overfits or verdict.onset_epoch is None:
        return
    panel.axvspan(*verdict.best_epoch_interval, color=plotting.VALIDATION, alpha=0.08, linewidth=0)
    panel.axvline(verdict.onset_epoch, color=plotting.INK, linewidth=1, linestyle=(0, (3, 2)))
    on_left = verdict.onset_epoch > run.evaluations.index[-1] / 2
    side: dict[str, Any] = {"ha": "right" if on_left else "left", "va": "top", "fontsize": 8}
    text, offset = f"onset: epoch {verdict.onset_epoch:.3g}", (-4 if on_left else 4, -4)
    place = verdict.onset_epoch, 1
    plotting.write_near(panel, text, place, offset, xycoords=("data", "axes fraction"), **side)


def _by_bucket(panel: Axes, run: RunRecord, curves: dict[str | None, pd.Series]) -> None:
    for color, (bucket, curve) in zip(_colors(run), curves.items(), strict=True):
        panel.plot(curve.index, curve, color=color, linewidth=1.4 if bucket else 2.4)
    known = [curve for curve in curves.values() if len(curve)]
    high = _span(known)[1]
    low = min(-0.04 * high, *(curve.iloc[1:].min() for curve in known), *(c.iloc[0] for c in known))
    panel.set(ylim=(low, high), xlabel="epoch", ylabel="difference (nats per token)")
    panel.axhline(0, color=plotting.MUTED, linewidth=0.8)
    plotting.whole_epochs(panel, run.evaluations.index[-1])


def _look_at_rise(panel: Axes, rises: dict[str | None, pd.Series]) -> None:
    # The fall before the best epoch is far larger, and the figure above shows it.
    end = max(rise.iloc[-1] for rise in rises.values() if len(rise))
    if end > 0:
        top = min(2 * end, panel.get_ylim()[1])
        panel.set_ylim(-0.06 * top, top)


def _name_ends(panel: Axes, run: RunRecord, curves: dict[str | None, pd.Series]) -> None:
    low, high = panel.get_ylim()
    ends = [
        (
            float(np.clip(curve.iloc[-1], low, high)),
            run.groups()[b].removesuffix(" entropy"),
            color,
        )
        for color, (b, curve) in zip(_colors(run), curves.items(), strict=True)
        if len(curve)
    ]
    plotting.label_ends(panel, ends, run.evaluations.index[-1])


def _colors(run: RunRecord) -> list[str]:
    return [plotting.INK, *plotting.bucket_colors(len(run.groups()) - 1)]


def _description(run: RunRecord) -> str:
    parts = []
    for bucket, title in run.groups().items():
        curve = run.curve("val", "loss", bucket)
        parts.append(
            f"{title}: {curve.iloc[0]:.3f} at the first evaluation, lowest {curve.min():.3f} "
            f"after epoch {curve.idxmin():g}, {curve.iloc[-1]:.3f} at the end"
        )
    return f"Line charts of losses over epochs. Validation loss, {'; '.join(parts)}."
