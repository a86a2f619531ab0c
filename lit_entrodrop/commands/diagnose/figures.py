"""Figure of the loss curves in a log."""

from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from lit_entrodrop.commands.diagnose.curves import Curve, DiagnosedLog, Floats
from lit_entrodrop.commands.report.rendering import plotting

MOST_BOUNDARIES = 40
# The steep fall at the start would flatten the curves.
SHOWN_SHARE = 0.97


def loss_figure(found: DiagnosedLog, name: str) -> plotting.FigureHtml:
    """Draw the losses with the boundaries of epochs, and the validation loss again, enlarged."""
    panels_of = ["Training and validation loss" if found.validations else "Training loss"]
    if found.validations and len(found.validations[0]) > 1:
        panels_of.append("Validation loss, enlarged")

    def draw(canvas: plotting.Canvas) -> Figure:
        figure, panels = canvas.panels(len(panels_of), 2.8)
        lines: dict[str, Any] = {}
        for panel, title in zip(panels, panels_of, strict=True):
            if panel is panels[0]:
                _draw_training(panel, found, lines)
            _draw_validation(panel, found, lines)
            _scale(panel, found, panel is panels[0])
            panel.set_title(title)
        panels[0].set_ylabel("loss")
        plotting.legend(figure, lines)
        return figure

    caption = "Dot: lowest validation loss." if found.validations else ""
    if found.verdicts and found.verdicts[0].onset is not None:
        caption += " Dashed line: first evaluation after it."
    if _boundaries(found):
        caption += " Dotted lines: boundaries of epochs; a drop right after one is a stair step."
    caption += " The steep fall at the start is cut off."
    return plotting.render_figure(None, name, draw, _description(found), caption.strip())


def _draw_training(panel: Axes, found: DiagnosedLog, lines: dict[str, Any]) -> None:
    curve = found.training
    if len(curve):
        style: dict[str, Any] = {"color": plotting.TRAIN, "linewidth": 1.2}
        [lines[curve.name]] = panel.plot(_places(found, curve), curve.losses, **style)


def _draw_validation(panel: Axes, found: DiagnosedLog, lines: dict[str, Any]) -> None:
    colors = (plotting.VALIDATION, *plotting.SERIES[2:])
    for i, (curve, verdict) in enumerate(zip(found.validations, found.verdicts, strict=True)):
        width = 2.3 if i == 0 else 1.4
        style: dict[str, Any] = {"color": colors[i % len(colors)], "linewidth": width}
        places = _places(found, curve)
        [lines[curve.name]] = panel.plot(places, curve.losses, ".-", markersize=4, **style)
        panel.plot(places[verdict.best], curve.losses[verdict.best], "o", **style)
        if i == 0 and verdict.onset is not None:
            panel.axvline(places[verdict.onset], color=plotting.INK, linewidth=1, linestyle="--")


def _scale(panel: Axes, found: DiagnosedLog, with_training: bool) -> None:
    curves = [*found.validations, *([found.training] if with_training else [])]
    values = [each.losses for each in curves if len(each)]
    low = min(each.min() for each in values)
    high = max(
        np.quantile(each, SHOWN_SHARE) if len(each) > 20 else each[1:].max(initial=each[-1])
        for each in values
    )
    margin = 0.08 * (high - low) or 0.1
    panel.set_ylim(low - margin, high + margin)
    last = max(float(_places(found, each)[-1]) for each in (*curves, found.training) if len(each))
    if _by_epoch(found):
        plotting.whole_epochs(panel, last)
        for boundary in _boundaries(found):
            panel.axvline(boundary, color=plotting.MUTED, linewidth=0.7, linestyle=":", alpha=0.7)
    panel.set_xlabel("epoch" if _by_epoch(found) else "step")


def _boundaries(found: DiagnosedLog) -> range:
    if not _by_epoch(found):
        return range(0)
    last = max(each.epochs[-1] for each in (found.training, *found.validations) if len(each))
    return range(1, int(np.ceil(last))) if last <= MOST_BOUNDARIES else range(0)


def _by_epoch(found: DiagnosedLog) -> bool:
    return all(each.by_epoch for each in (found.training, *found.validations))


def _places(found: DiagnosedLog, curve: Curve) -> Floats:
    return curve.epochs if _by_epoch(found) else curve.steps


def _description(found: DiagnosedLog) -> str:
    parts = [
        f"{each.name}: {each.losses[0]:.3f} at first, lowest {each.losses.min():.3f} at "
        f"{each.short_place(int(each.losses.argmin()))}, {each.losses[-1]:.3f} at the end"
        for each in (found.training, *found.validations)
        if len(each)
    ]
    return f"Line charts of losses. {'; '.join(parts)}."
