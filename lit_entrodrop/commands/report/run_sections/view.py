"""The section of the page on one run."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from lit_entrodrop.commands.report.records.run_record import RunRecord
from lit_entrodrop.commands.report.rendering.plotting import FigureHtml
from lit_entrodrop.commands.report.run_sections.conclusion import conclude_run
from lit_entrodrop.commands.report.run_sections.entropies import entropy_ridges, thinned
from lit_entrodrop.commands.report.run_sections.forgetting import forgetting_curves
from lit_entrodrop.commands.report.run_sections.losses import (
    loss_curves,
    rises_and_gaps,
    set_curves,
)
from lit_entrodrop.commands.report.run_sections.passages import passage_view
from lit_entrodrop.commands.report.run_sections.schedules import schedule
from lit_entrodrop.commands.report.run_sections.settings_tables import setting_tables
from lit_entrodrop.commands.report.run_sections.task import answers, task_curve
from lit_entrodrop.evaluation.metrics.token_metric import all_token_metrics

SHOWN_SAMPLES = 3
# Draws a figure; returns None where the run lacks the data.
FIGURES: dict[str, Callable[[RunRecord, Path, str], FigureHtml | None]] = {
    "losses": loss_curves,
    "sets": set_curves,
    "gaps": rises_and_gaps,
    "entropies": entropy_ridges,
    "schedule": schedule,
    "forgetting": forgetting_curves,
    "task": task_curve,
}
Texts = list[tuple[str, str]]  # time and text of samples


def run_view(run: RunRecord, figures: Path, key: str) -> dict[str, Any]:
    """Draw a run's figures, and return all that the template shows of it.

    Args:
        run: The run.
        figures: Folder for its figures.
        key: Prefix of its links and figures; empty if the page has one run.
    """
    return {
        "run": run,
        "key": key,
        "conclusion": conclude_run(run),
        "figures": {name: draw(run, figures, key + name) for name, draw in FIGURES.items()},
        "metrics": list(_metric_rows(run)),
        "samples": _samples(run),
        "answers": answers(run),
        "passages": passage_view(run),
        "tables": setting_tables(run),
    }


def _metric_rows(run: RunRecord) -> Iterator[tuple[str, str, str, str]]:
    """Yield metric, tokens, value at the best epoch and value at the last one."""
    losses = run.trained_loss()
    for metric in all_token_metrics().values():
        better = "lower" if metric.lower_is_better else "higher"
        for bucket, title in run.groups().items() if metric.name != "loss" else ():
            curve = run.curve("val", metric.name, bucket)
            if not len(curve):
                continue
            best = curve.get(losses.idxmin()) if len(losses) else None
            best, last = (
                "–" if value is None else f"{value:{metric.form}}"
                for value in (best, curve.iloc[-1])
            )
            yield f"{metric.title} ({better} is better)", title, best, last


def _samples(run: RunRecord) -> dict[str, tuple[Texts, Texts]]:
    """Return the visible samples and the collapsed ones, by prompt."""
    prompts: dict[str, Texts] = {}
    for sample in run.samples:
        epoch = float(sample.get("epoch") or 0)
        when = f"after epoch {epoch:.3g}" if sample.get("step") else "before training"
        text = str(sample.get("text", ""))
        prompts.setdefault(str(sample.get("prompt", "")), []).append((when, text))
    shown = {prompt: thinned(texts, SHOWN_SAMPLES) for prompt, texts in prompts.items()}
    return {
        prompt: (shown[prompt], [each for each in texts if each not in shown[prompt]])
        for prompt, texts in prompts.items()
    }
