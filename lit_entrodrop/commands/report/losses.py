"""Figures of losses over epochs."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from lit_entrodrop.commands.report.drawing import (
    CLEAN,
    INK,
    MUTED,
    SERIES,
    TRAIN,
    VALIDATION,
    Picture,
    Sheet,
    bucket_colors,
    label_ends,
    legend,
    picture,
    whole_epochs,
)
from lit_entrodrop.commands.report.run import Run


def loss_curves(run: Run, folder: Path, name: str) -> Picture:
    """Draw training, clean training and validation loss, a panel for each group of tokens."""

    def draw(sheet: Sheet) -> Figure:
        figure, panels = sheet.panels(len(run.groups()), 2.5)
        named: dict[str, Any] = {}
        for panel, (ending, title) in zip(panels, run.groups().items(), strict=True):
            lines = _lines(run, ending)
            for label, (line, style) in lines.items():
                [drawn] = panel.plot(line.index, line, **style)
                named.setdefault(label, drawn)
            panel.set(title=title, ylim=_limits(lines), xlabel="epoch")
            whole_epochs(panel, run.evaluations.index[-1])
            _mark(panel, run, ending, lines["validation"][0])
        panels[0].set_ylabel("loss (nats per token)")
        legend(figure, named)
        return figure

    caption = "Dot: lowest validation loss. Each panel has its own scale."
    if run.diagnosis and run.diagnosis.overfits:
        caption += (
            " Dashed line: onset, the first epoch of overfitting. Shaded: 95 % interval of the "
            "best epoch."
        )
    if run.diagnosis and run.diagnosis.epoch_drops:
        drop = np.mean(run.diagnosis.epoch_drops)
        caption += (
            f" From the end of an epoch to the start of the next, training loss changes by "
            f"{-drop:+.3f} nats on average; a stair down tells of text that is recognised."
        ).replace("-0", "−0")
    return picture(folder, name, draw, _told(run), caption)


def rises_and_gaps(run: Run, folder: Path, name: str) -> Picture:
    """Draw how far validation loss is above its best, and above that of training text."""
    gaps = {e: run.curve(f"gap/loss{e}") for e in run.groups()}
    rises = {e: _since_best(run.curve(f"val/loss{e}")) for e in run.groups()}
    panels_of = {"Validation loss above its best": rises}
    if any(len(gap) for gap in gaps.values()):
        panels_of["Gap: validation − clean training"] = gaps

    def draw(sheet: Sheet) -> Figure:
        figure, panels = sheet.panels(len(panels_of), 2.8)
        for panel, (title, curves) in zip(panels, panels_of.items(), strict=True):
            panel.set_title(title)
            _by_bucket(panel, run, curves)
            if curves is rises:
                _look_at_rise(panel, rises)
            _name_ends(panel, run, curves)
        return figure

    told = "; ".join(
        f"{title}, at the end: "
        + ", ".join(f"{run.groups()[e]} {c.iloc[-1]:+.3f}" for e, c in curves.items() if len(c))
        for title, curves in panels_of.items()
    )
    caption = (
        "Above its best: zero at the best epoch of each bucket, then what overfitting costs on new "
        "text. The fall before is cut off."
    )
    if len(panels_of) > 1:
        caption += " Gap: how much better the model knows its training text than new text."
    return picture(folder, name, draw, f"Line charts, nats per token. {told}.", caption)


def side_by_side(runs: list[Run], folder: Path, name: str) -> Picture:
    """Draw the validation losses of several runs, a panel for each group of tokens."""
    titles = max((run.titles() for run in runs), key=len)
    known = {ending for run in runs for ending in run.groups()}
    groups = {ending: title for ending, title in titles.items() if ending in known}

    def draw(sheet: Sheet) -> Figure:
        figure, panels = sheet.panels(len(groups), 2.6)
        named: dict[str, Any] = {}
        for panel, (ending, title) in zip(panels, groups.items(), strict=True):
            curves = [run.curve(f"val/loss{ending}") for run in runs]
            for i, (run, curve) in enumerate(zip(runs, curves, strict=True)):
                color = SERIES[i % len(SERIES)]
                style = "-" if i < len(SERIES) else "--"
                [drawn] = panel.plot(curve.index, curve, style, color=color)
                named.setdefault(run.name, drawn)
                trained = _trained(curve)
                if len(trained):
                    panel.plot(trained.idxmin(), trained.min(), "o", color=color, markersize=5)
            panel.set(title=title, xlabel="epoch", ylim=_span(curves))
            whole_epochs(panel, max(run.evaluations.index[-1] for run in runs))
        panels[0].set_ylabel("validation loss (nats per token)")
        legend(figure, named)
        return figure

    told = ", ".join(f"{r.name} {_trained(r.curve('val/loss')).min():.3f}" for r in runs)
    caption = (
        "Dot: lowest loss of each run since training began. Loss before that is cut off where it "
        "stands far above."
    )
    return picture(
        folder, name, draw, f"Line charts of validation loss. Lowest, all tokens: {told}.", caption
    )


def shares(run: Run, folder: Path, name: str) -> Picture | None:
    """Draw what is known of forgetting and of text recited, if anything is."""
    forgotten = run.curve("forgetting/loss")
    recited = {
        "training text": (run.curve("clean_train/memorized"), CLEAN),
        "validation text": (run.curve("val/memorized"), VALIDATION),
    }
    recited = {label: pair for label, pair in recited.items() if len(pair[0])}
    if not len(forgotten) and not recited:
        return None

    def draw(sheet: Sheet) -> Figure:
        figure, panels = sheet.panels(bool(len(forgotten)) + bool(recited), 2.4)
        if len(forgotten):
            panels[0].plot(forgotten.index, forgotten, color=INK)
            panels[0].set(title="Loss on general text", ylabel="nats per token")
        if recited:
            for line, color in recited.values():
                panels[-1].plot(line.index, 100 * line, color=color)
            panels[-1].set(title="Documents recited verbatim", ylabel="% of documents")
            panels[-1].set_ylim(0, max(1.0, 108 * max(c.max() for c, _ in recited.values())))
        for panel in panels:
            panel.set_xlabel("epoch")
            whole_epochs(panel, run.evaluations.index[-1])
        if recited:
            ends = [(100 * c.iloc[-1], label, color) for label, (c, color) in recited.items()]
            label_ends(panels[-1], ends, run.evaluations.index[-1])
        return figure

    told = [f"{label}: {c.iloc[-1]:.1%} recited at the end" for label, (c, _) in recited.items()]
    if len(forgotten):
        told.append(
            f"loss on general text from {forgotten.iloc[0]:.3f} to {forgotten.iloc[-1]:.3f}"
        )
    caption = "Rising loss on general text is forgetting; rising shares are memorisation."
    return picture(folder, name, draw, f"Line charts. {'; '.join(told)}.", caption)


def _trained(curve: pd.Series) -> pd.Series:
    # No checkpoint holds the untrained model.
    return curve[curve.index > 0] if curve.index.max() > 0 else curve


def _lines(run: Run, ending: str) -> dict[str, tuple[pd.Series, dict[str, Any]]]:
    lines: dict[str, tuple[pd.Series, dict[str, Any]]] = {}
    if not ending:
        trained = run.training["train/loss"] if len(run.training) else pd.Series(dtype=float)
        lines["training, as optimised"] = trained, {"color": TRAIN, "linewidth": 1.2}
    lines["training text, clean"] = run.curve(f"clean_train/loss{ending}"), {"color": CLEAN}
    lines["validation"] = run.curve(f"val/loss{ending}"), {"color": VALIDATION, "linewidth": 2.3}
    return {name: pair for name, pair in lines.items() if len(pair[0]) or name == "validation"}


def _limits(lines: dict[str, tuple[pd.Series, dict[str, Any]]]) -> tuple[float, float]:
    return _span([line for line, _ in lines.values()])


def _span(curves: list[pd.Series]) -> tuple[float, float]:
    # The loss before the first epoch is far above all others and would flatten the curves.
    values = pd.concat([c[c.index >= min(1.0, c.index[-1])] for c in curves if len(c)])
    margin = 0.1 * (values.max() - values.min()) or 0.1
    return values.min() - margin, values.max() + margin


def _mark(panel: Axes, run: Run, ending: str, validation: pd.Series) -> None:
    panel.plot(validation.idxmin(), validation.min(), "o", color=VALIDATION, markersize=5)
    if run.diagnosis is None:
        return
    bucket = ending.removeprefix("_").removesuffix("_entropy") or "all"
    verdict = run.diagnosis.verdicts.get(bucket)
    if verdict is None or not verdict.overfits or verdict.onset_epoch is None:
        return
    panel.axvspan(*verdict.best_epoch_interval, color=VALIDATION, alpha=0.08, linewidth=0)
    panel.axvline(verdict.onset_epoch, color=INK, linewidth=1, linestyle=(0, (3, 2)))
    on_left = verdict.onset_epoch > run.evaluations.index[-1] / 2
    panel.annotate(
        f"onset: epoch {verdict.onset_epoch:.3g}",
        (verdict.onset_epoch, 1),
        xycoords=("data", "axes fraction"),
        xytext=(-4 if on_left else 4, -4),
        textcoords="offset points",
        ha="right" if on_left else "left",
        va="top",
        fontsize=8,
    )


def _since_best(curve: pd.Series) -> pd.Series:
    return curve - curve.min() if len(curve) else curve


def _by_bucket(panel: Axes, run: Run, curves: dict[str, pd.Series]) -> None:
    for color, (ending, curve) in zip(_colors(run), curves.items(), strict=True):
        panel.plot(curve.index, curve, color=color, linewidth=1.4 if ending else 2.4)
    known = [curve for curve in curves.values() if len(curve)]
    high = _span(known)[1]
    low = min(-0.04 * high, *(curve.iloc[1:].min() for curve in known), *(c.iloc[0] for c in known))
    panel.set(ylim=(low, high), xlabel="epoch", ylabel="nats per token")
    panel.axhline(0, color=MUTED, linewidth=0.8)
    whole_epochs(panel, run.evaluations.index[-1])


def _look_at_rise(panel: Axes, rises: dict[str, pd.Series]) -> None:
    # The fall before it is larger by far, and stands in the figure above.
    end = max(rise.iloc[-1] for rise in rises.values() if len(rise))
    if end > 0:
        top = min(2 * end, panel.get_ylim()[1])
        panel.set_ylim(-0.06 * top, top)


def _name_ends(panel: Axes, run: Run, curves: dict[str, pd.Series]) -> None:
    low, high = panel.get_ylim()
    ends = [
        (float(np.clip(curve.iloc[-1], low, high)), run.groups()[e].removesuffix(" entropy"), color)
        for color, (e, curve) in zip(_colors(run), curves.items(), strict=True)
        if len(curve)
    ]
    label_ends(panel, ends, run.evaluations.index[-1])


def _colors(run: Run) -> list[str]:
    return [INK, *bucket_colors(len(run.groups()) - 1)]


def _told(run: Run) -> str:
    parts = []
    for ending, title in run.groups().items():
        curve = run.curve(f"val/loss{ending}")
        parts.append(
            f"{title}: {curve.iloc[0]:.3f} at first, lowest {curve.min():.3f} after epoch "
            f"{curve.idxmin():g}, {curve.iloc[-1]:.3f} at the end"
        )
    return f"Line charts of losses over epochs. Validation loss, {'; '.join(parts)}."
