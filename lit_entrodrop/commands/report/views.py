"""A run as the page shows it: figures, tables, and sentences in place of what it lacks."""

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lit_entrodrop.commands.report.drawing import Picture
from lit_entrodrop.commands.report.entropies import entropy_ridges, thinned
from lit_entrodrop.commands.report.losses import loss_curves, rises_and_gaps, shares
from lit_entrodrop.commands.report.passages import TextView, text_view
from lit_entrodrop.commands.report.run import Run
from lit_entrodrop.commands.report.schedules import schedule
from lit_entrodrop.commands.report.settings import Rows, setting_tables

SHOWN_SAMPLES = 3
GIST = re.compile(r"(.*?(?:: (?:no difference shown|not tested))?)[:;] (.+)", re.DOTALL)
# In words, and how they look.
VERDICTS = {
    "overfits": ("overfits", "bad"),
    "diverges": ("diverges", "bad"),
    "holds": ("no overfitting shown", "good"),
    "unknown": ("too little to tell", "none"),
}


@dataclass(frozen=True)
class BucketRow:
    """What is known of one group of tokens; empty text where nothing is."""

    name: str
    verdict: str
    style: str
    best: str
    onset: str
    losses: tuple[str, str]
    rise: str


@dataclass(frozen=True)
class Samples:
    """Texts that continue a prompt, the most telling apart from the rest."""

    prompt: str
    shown: list[tuple[str, str]]
    others: list[tuple[str, str]]


@dataclass(frozen=True)
class RunView:
    """All that the page shows of a run.

    Attributes:
        key: tells its figures and links from those of other runs.
        lead: the verdict in words, the most important sentence first.
        rows: of the table of buckets.
        figures: by section; None where the run lacks what they show.
        missing: what is missing and how to get it, by section.
    """

    name: str
    key: str
    lead: list[str]
    rows: list[BucketRow]
    figures: dict[str, Picture | None]
    missing: dict[str, list[str]]
    samples: list[Samples]
    text: TextView | None
    tables: dict[str, Rows]
    config: str


def view(run: Run, figures: Path, key: str) -> RunView:
    """Draw and lay out a run.

    Args:
        run: that was read.
        figures: folder for its figures.
        key: put before their names.
    """
    draw: dict[str, Callable[[Run, Path, str], Picture | None]] = {
        "losses": loss_curves,
        "gaps": rises_and_gaps,
        "entropies": entropy_ridges,
        "schedule": schedule,
        "shares": shares,
    }
    return RunView(
        name=run.name,
        key=key,
        lead=_lead(run),
        rows=[_row(run, ending, title) for ending, title in run.groups().items()],
        figures={name: function(run, figures, key + name) for name, function in draw.items()},
        missing=missing(run),
        samples=_samples(run),
        text=text_view(run),
        tables=setting_tables(run),
        config=run.config,
    )


def missing(run: Run) -> dict[str, list[str]]:
    """Say what a run lacks and how to get it, by section of the page."""
    told: dict[str, list[str]] = {name: [] for name in ("losses", "gaps", "shares")}
    told["files"] = run.notes
    if empty := [title for e, title in run.titles().items() if e not in run.groups()]:
        told["losses"].append(
            f"No validation token is of {', '.join(empty)}, so there are no losses of it: choose "
            "other `model.entropy_buckets`, or more validation text."
        )
    if not run.buckets:
        told["losses"].append(
            "Losses by entropy are missing: `fit` measures the entropies of the initial model "
            "before the first step, which this run has not."
        )
    if not len(run.curve("clean_train/loss")):
        told["losses"].append(
            "The loss on clean training text is missing: set `data.clean_train_blocks` (by default "
            "32) above 0 and fit again."
        )
        told["gaps"].append("There is no gap without the loss on clean training text.")
    if not len(run.curve("forgetting/loss")):
        told["shares"].append(
            "Forgetting was not measured: name a general corpus in `data.forgetting` and fit again."
        )
    if not len(run.curve("val/memorized")) and not len(run.curve("clean_train/memorized")):
        told["shares"].append(
            "Verbatim recital was not measured: `model.memorization` is null, or no document is "
            "long enough for it."
        )
    return told


def headline(sentence: str) -> list[str]:
    """Part a sentence into its gist and the numbers behind, if it has both.

    >>> headline("No overfitting is shown: the loss is at its lowest.")
    ['No overfitting is shown', 'The loss is at its lowest.']
    >>> headline("A and B: no difference shown; best loss +0.01.")
    ['A and B: no difference shown', 'Best loss +0.01.']
    """
    found = GIST.fullmatch(sentence)
    if found is None:
        return [sentence]
    gist, numbers = found.groups()
    return [gist, numbers[0].upper() + numbers[1:]]


def _lead(run: Run) -> list[str]:
    if run.diagnosis is not None and run.diagnosis.sentences:
        return run.diagnosis.sentences
    curve = run.curve("val/loss")
    return [
        f"Validation loss was lowest after epoch {curve.idxmin():g}: {curve.min():.3f} nats per "
        f"token; it ended at {curve.iloc[-1]:.3f}.",
        f"There is no diagnosis, which needs the loss of each document: {run.undiagnosed}",
    ]


def _row(run: Run, ending: str, title: str) -> BucketRow:
    curve = run.curve(f"val/loss{ending}")
    losses = f"{curve.min():.3f}", f"{curve.iloc[-1]:.3f}"
    bucket = ending.removeprefix("_").removesuffix("_entropy") or "all"
    found = run.diagnosis.verdicts.get(bucket) if run.diagnosis else None
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


def _signed(value: float) -> str:
    return f"{value:+.3f}".replace("-", "−")


def _samples(run: Run) -> list[Samples]:
    prompts: dict[str, list[tuple[str, str]]] = {}
    for sample in run.samples:
        epoch = float(sample.get("epoch") or 0)
        when = f"after epoch {epoch:.3g}" if sample.get("step") else "before training"
        prompts.setdefault(str(sample.get("prompt", "")), []).append((when, _text(sample)))
    result = []
    for prompt, texts in prompts.items():
        shown = thinned(texts, SHOWN_SAMPLES)
        result.append(Samples(prompt, shown, [each for each in texts if each not in shown]))
    return result


def _text(sample: dict[str, Any]) -> str:
    return str(sample.get("text", ""))
