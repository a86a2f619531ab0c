"""The section of the page on one run: figures, tables, and what is missing."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lit_entrodrop.commands.report.conclusion import Conclusion, conclude_run
from lit_entrodrop.commands.report.entropies import entropy_ridges, thinned
from lit_entrodrop.commands.report.forgetting import forgetting_curves
from lit_entrodrop.commands.report.losses import loss_curves, rises_and_gaps
from lit_entrodrop.commands.report.passages import PassageView, passage_view
from lit_entrodrop.commands.report.plotting import FigureHtml
from lit_entrodrop.commands.report.run_record import RunRecord
from lit_entrodrop.commands.report.schedules import schedule
from lit_entrodrop.commands.report.settings_tables import SettingRows, setting_tables
from lit_entrodrop.evaluation.metrics.token_metric import all_token_metrics

SHOWN_SAMPLES = 3
# Text and style of each kind of verdict.
VERDICTS = {
    "overfits": ("overfits", "bad"),
    "diverges": ("diverges", "bad"),
    "holds": ("no overfitting shown", "good"),
    "unknown": ("too little data", "none"),
}


@dataclass(frozen=True)
class BucketRow:
    """The verdict on one group of tokens, as text."""

    name: str
    verdict: str
    style: str
    best: str
    onset: str
    losses: tuple[str, str]
    rise: str


@dataclass(frozen=True)
class MetricRow:
    """Values of a metric other than the loss on one group of tokens, as text."""

    name: str
    tokens: str
    best: str
    last: str


@dataclass(frozen=True)
class PromptSamples:
    """Texts that continue a prompt: some are shown, the others are folded."""

    prompt: str
    shown: list[tuple[str, str]]
    others: list[tuple[str, str]]


@dataclass(frozen=True)
class RunView:
    """The section of the page on one run.

    Attributes:
        name: Name of the run.
        key: Prefix of its links and figures; empty if the page has one run.
        conclusion: The finding and its numbers.
        rows: Rows of the table of buckets.
        metrics: Rows of the table of other metrics.
        figures: Figures by section; None where the run lacks the data.
        missing: What is missing and how to get it, by section.
        samples: Generated texts by prompt.
        passages: Validation passages, token by token; None if there are none.
        tables: Settings by title.
        config: All settings, as YAML.
    """

    name: str
    key: str
    conclusion: Conclusion
    rows: list[BucketRow]
    metrics: list[MetricRow]
    figures: dict[str, FigureHtml | None]
    missing: dict[str, list[str]]
    samples: list[PromptSamples]
    passages: PassageView | None
    tables: dict[str, SettingRows]
    config: str


def run_view(run: RunRecord, figures: Path, key: str) -> RunView:
    """Draw and lay out the section on a run.

    Args:
        run: The run.
        figures: Folder for its figures.
        key: Prefix of its links and figures.
    """
    draw: dict[str, Callable[[RunRecord, Path, str], FigureHtml | None]] = {
        "losses": loss_curves,
        "gaps": rises_and_gaps,
        "entropies": entropy_ridges,
        "schedule": schedule,
        "forgetting": forgetting_curves,
    }
    return RunView(
        name=run.name,
        key=key,
        conclusion=conclude_run(run),
        rows=[_row(run, bucket, title) for bucket, title in run.groups().items()],
        metrics=_metric_rows(run),
        figures={name: function(run, figures, key + name) for name, function in draw.items()},
        missing=missing(run),
        samples=_samples(run),
        passages=passage_view(run),
        tables=setting_tables(run),
        config=run.config,
    )


def missing(run: RunRecord) -> dict[str, list[str]]:
    """Say what a run lacks and how to get it, by section of the page."""
    notes: dict[str, list[str]] = {name: [] for name in ("losses", "gaps", "forgetting")}
    notes["files"] = run.notes
    if empty := [t for bucket, t in run.titles().items() if bucket not in run.groups()]:
        notes["losses"].append(
            f"Losses of {', '.join(empty)} are missing, as no validation token has that entropy: "
            "change `model.entropy_buckets`, or use more validation text."
        )
    if not run.buckets:
        notes["losses"].append(
            "Losses by entropy are missing: `fit` measures the entropies under the initial model "
            "before the first step, but this run has none."
        )
    if not len(run.curve("clean_train", "loss")):
        notes["losses"].append(
            "The loss on clean training text is missing: set `data.clean_train_blocks` above 0 "
            "(default: 32) and train again."
        )
        notes["gaps"].append("There is no gap without the loss on clean training text.")
    if not len(run.curve("forgetting", "loss")):
        notes["forgetting"].append(
            "Forgetting was not measured: set `data.forgetting` to a general corpus and train "
            "again."
        )
    if not len(run.curve("val", "memorized")) and not len(run.curve("clean_train", "memorized")):
        notes["forgetting"].append(
            "Verbatim memorization was not measured: `model.memorization` is null, or every "
            "document is too short."
        )
    return notes


def _row(run: RunRecord, bucket: str | None, title: str) -> BucketRow:
    curve = run.curve("val", "loss", bucket)
    losses = f"{curve.min():.3f}", f"{curve.iloc[-1]:.3f}"
    found = run.verdict(bucket)
    if found is None:
        rise = _signed(curve.iloc[-1] - curve.min())
        best = f"{curve.idxmin():.3g}"
        return BucketRow(title, "not diagnosed", "none", best, "–", losses, rise)
    verdict, style = VERDICTS[found.kind]
    early, late = found.best_epoch_interval
    known = found.kind != "unknown"
    return BucketRow(
        name=title,
        verdict=verdict,
        style=style,
        best=f"{found.best_epoch:.3g}" + (f" [{early:.3g}–{late:.3g}]" if known else ""),
        onset="–" if found.onset_epoch is None else f"{found.onset_epoch:.3g}",
        losses=losses,
        rise=f"{_signed(found.rise)} [{', '.join(map(_signed, found.rise_interval))}]"
        if known
        else "–",
    )


def _metric_rows(run: RunRecord) -> list[MetricRow]:
    losses = run.trained_loss()
    found = []
    for metric in all_token_metrics().values():
        better = "lower" if metric.lower_is_better else "higher"
        for bucket, title in run.groups().items() if metric.name != "loss" else ():
            curve = run.curve("val", metric.name, bucket)
            if not len(curve):
                continue
            best = curve.get(losses.idxmin()) if len(losses) else None
            texts = [
                "–" if value is None else f"{value:{metric.form}}"
                for value in (best, curve.iloc[-1])
            ]
            found.append(MetricRow(f"{metric.title} ({better} is better)", title, *texts))
    return found


def _signed(value: float) -> str:
    return f"{value:+.3f}".replace("-", "−")


def _samples(run: RunRecord) -> list[PromptSamples]:
    prompts: dict[str, list[tuple[str, str]]] = {}
    for sample in run.samples:
        epoch = float(sample.get("epoch") or 0)
        when = f"after epoch {epoch:.3g}" if sample.get("step") else "before training"
        prompts.setdefault(str(sample.get("prompt", "")), []).append((when, _text(sample)))
    result = []
    for prompt, texts in prompts.items():
        shown = thinned(texts, SHOWN_SAMPLES)
        result.append(PromptSamples(prompt, shown, [each for each in texts if each not in shown]))
    return result


def _text(sample: dict[str, Any]) -> str:
    return str(sample.get("text", ""))
