"""Diagnosis of one or several logs as one self-contained HTML page."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from lit_entrodrop import __version__
from lit_entrodrop.commands.diagnose.curves import DiagnosedLog
from lit_entrodrop.commands.diagnose.figures import loss_figure
from lit_entrodrop.commands.report.page import VERDICTS
from lit_entrodrop.commands.report.rendering.templating import environment
from lit_entrodrop.evaluation.conclusion import Conclusion
from lit_entrodrop.evaluation.diagnosis import epoch_drops, loss_curve
from lit_entrodrop.runs.writing import write_whole
from lit_entrodrop.training.provenance import public_name

PACKAGE = "lit_entrodrop.commands.diagnose"
CHIPS = {**VERDICTS, "rises": ("rises, not certain", "bad")}


def write_page(
    path: Path, found: Sequence[DiagnosedLog], conclusions: Sequence[Conclusion]
) -> None:
    """Write the page of some logs; it needs no network."""
    views = [
        _view(f"log-{number}", each, conclusion)
        for number, (each, conclusion) in enumerate(zip(found, conclusions, strict=True), 1)
    ]
    overfitting = sum(each.verdicts[0].onset is not None for each in found if each.verdicts)
    single = len(views) == 1
    page = (
        environment(PACKAGE)
        .get_template("diagnose.html.j2")
        .render(
            headline=conclusions[0].headline
            if single
            else f"The validation loss rises in {overfitting} of {len(views)} runs",
            subject=f"{views[0]['name']}, {found[0].log.trainer.name}"
            if single
            else "Training logs",
            views=views,
            rules=(loss_curve.RULE, epoch_drops.RULE),
            version=__version__,
        )
    )
    write_whole(path, page)


def _view(key: str, found: DiagnosedLog, conclusion: Conclusion) -> dict[str, Any]:
    return {
        "key": key,
        "name": public_name(found.log.name),
        "conclusion": conclusion,
        "notes": found.notes,
        "figure": loss_figure(found, key),
        "rows": list(_rows(found)),
    }


def _rows(found: DiagnosedLog) -> Iterator[dict[str, Any]]:
    for curve, verdict in zip(found.validations, found.verdicts, strict=True):
        text, style = CHIPS[verdict.kind]
        yield {
            "name": curve.name,
            "verdict": text,
            "style": style,
            "place": curve.place(verdict.best),
            "lowest": curve.losses[verdict.best],
            "last": curve.losses[-1],
            "rise": verdict.rise,
            "scatter": verdict.scatter,
            "p_value": verdict.p_value,
        }
