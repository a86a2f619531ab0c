"""What a comparison has found, as ``comparison.json`` keeps it."""

import json
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from lit_entrodrop.commands.compare.analysis import (
    Finding,
    Pair,
    Trial,
    choose,
    find_differences,
    pairs,
    sentence,
)
from lit_entrodrop.commands.compare.measures import fingerprints
from lit_entrodrop.commands.report.formatting import LOSS
from lit_entrodrop.evaluation.statistics import CONFIDENCE, OVER_DOCUMENTS, OVER_SEEDS

SCHEMA = 1
FILE_NAME = "comparison.json"
FEW_DOCUMENTS = 30


@dataclass(frozen=True)
class Subject:
    """What is compared.

    Args:
        title: stands above the results.
        baseline: name of the arm of reference.
        contrasts: further pairs of arms.
        trials: of all arms, with the results of their runs.
        split: on which losses are told.
        notes: what the reader must know of how the runs were made.
    """

    title: str
    baseline: str
    contrasts: Sequence[tuple[str, str]]
    trials: Sequence[Trial]
    split: str
    notes: Sequence[str] = ()


def judge(subject: Subject, folder: Path) -> dict[str, Any]:
    """Choose trials, compare them and say what has been shown.

    Args:
        subject: what is compared.
        folder: from which the folders of runs are named.

    Returns:
        What ``comparison.json`` keeps; docs/compare.md says what it means.
    """
    chosen = choose(subject.trials)
    compared = pairs(subject.trials, chosen, subject.baseline, subject.contrasts)
    findings = find_differences(compared)
    against_baseline = {
        pair.first.arm: (pair, found)
        for pair, found in zip(compared, findings, strict=True)
        if not pair.is_contrast
    }
    return {
        "schema": SCHEMA,
        "title": subject.title,
        "split": subject.split,
        "baseline": subject.baseline,
        "confidence": CONFIDENCE,
        "seeds": sorted({seed for trial in subject.trials for seed in trial.results}),
        "arms": {
            name: _arm(trial, subject.trials, against_baseline.get(name), folder)
            for name, trial in chosen.items()
        },
        "contrasts": [
            _contrast(pair, found) for pair, found in zip(compared, findings, strict=True)
        ],
        "notes": [*subject.notes, *_notes(subject, compared, findings)],
    }


def to_json(content: Mapping[str, Any]) -> str:
    """Return standard JSON.

    Raises:
        ValueError: If a number is not finite.
    """
    return json.dumps(content, indent=2, allow_nan=False, ensure_ascii=False) + "\n"


def _arm(
    trial: Trial,
    trials: Iterable[Trial],
    against: tuple[Pair, Mapping[str, Finding]] | None,
    folder: Path,
) -> dict[str, Any]:
    pair, findings = against or (None, {})
    tried = [
        {
            "name": each.name,
            "strength": each.strength,
            "validation_loss": each.validation_loss,
            "chosen": each is trial,
        }
        for each in trials
        if each.arm == trial.arm
    ]
    return {
        "chosen": trial.name,
        "strength": trial.strength,
        "verdict": findings[LOSS].verdict if findings else None,
        "sentence": sentence(pair, findings) if pair else None,
        "trials": tried,
        "runs": [
            {"seed": seed, "folder": os.path.relpath(result.folder, folder), **result.values}
            for seed, result in trial.results.items()
        ],
        "metrics": {
            metric: _metric(trial, metric, findings.get(metric)) for metric in trial.metrics
        },
    }


def _metric(trial: Trial, metric: str, finding: Finding | None) -> dict[str, Any]:
    values = trial.values(metric, list(trial.results))
    found = {} if finding is None else finding.to_dict()
    return {"mean": float(np.mean(values)), "values": values, **found}


def _contrast(pair: Pair, findings: Mapping[str, Finding]) -> dict[str, Any]:
    other = f"{pair.second.arm} at {pair.second.name}" if pair.is_matched else pair.second.arm
    return {
        "arm": pair.first.arm,
        "against": other,
        "against_arm": pair.second.arm,
        "strengths": [pair.first.name, pair.second.name],
        "drop_rates": [pair.first.drop_rate, pair.second.drop_rate],
        "is_contrast": pair.is_contrast,
        "is_matched": pair.is_matched,
        "metric": LOSS,
        **findings[LOSS].to_dict(),
        "sentence": sentence(pair, findings),
        "metrics": {name: finding.to_dict() for name, finding in findings.items()},
    }


def _notes(
    subject: Subject, compared: Sequence[Pair], findings: Sequence[Mapping[str, Finding]]
) -> list[str]:
    methods = {found[LOSS].estimate.method for found in findings}
    notes = [
        *_on_trials(subject.trials),
        *_on_data(subject.trials),
        *_on_idle(subject.trials),
        *_on_intervals(methods, findings),
    ]
    if len(compared) > 1 and methods != {None}:
        notes.append(
            f"p values are corrected for {len(compared)} comparisons (Holm); intervals are not."
        )
    return notes


def _on_trials(trials: Sequence[Trial]) -> list[str]:
    counts = {trial.arm: sum(each.arm == trial.arm for each in trials) for trial in trials}
    most = max(counts.values())
    if most == 1:
        return []
    single = [name for name, count in counts.items() if count == 1]
    note = (
        f"The strength of an arm is that of the lowest validation loss, of {most} tried "
        "(mean over seeds of each run's best)"
    )
    return [f"{note}; {', '.join(single)} had one trial." if single else f"{note}."]


def _on_data(trials: Sequence[Trial]) -> list[str]:
    results = [result for trial in trials for result in trial.results.values()]
    notes = []
    known = [found for result in results if (found := fingerprints(result.folder))]
    notes += [
        f"Not matched: the runs had different {split} data."
        for split in sorted({name for each in known for name in each})
        if len({each.get(split) for each in known}) > 1
    ]
    if len(steps := sorted({result.total_steps for result in results})) > 1:
        notes.append(f"Not matched: the runs took between {steps[0]} and {steps[-1]} steps.")
    return notes


def _on_idle(trials: Sequence[Trial]) -> list[str]:
    idle = sorted(
        {
            trial.arm
            for trial in trials
            if any(result.values.get("drop_rate") == 0 for result in trial.results.values())
        }
    )
    if not idle:
        return []
    return [
        f"{', '.join(idle)} dropped no token at all, and so trained as without it: entropies of "
        "the last epoch are known from the second epoch on."
    ]


def _on_intervals(methods: set[str | None], found: Sequence[Mapping[str, Finding]]) -> list[str]:
    notes = []
    estimates = [each[LOSS].estimate for each in found]
    samples = min(estimate.samples for estimate in estimates)
    if OVER_SEEDS in methods:
        notes.append(
            f"Intervals are over {samples} seeds (paired t). Few seeds show large "
            "differences only: no difference shown does not mean that there is none."
        )
    if OVER_DOCUMENTS in methods:
        few = f", and {samples} documents are few" if samples < FEW_DOCUMENTS else ""
        notes.append(
            "One seed: intervals are over documents (paired bootstrap). They speak of these "
            f"trained models, not of what other seeds would give{few}."
        )
    if None in methods:
        notes.append(
            "Not tested: with one seed an interval takes the losses of documents, and the "
            "runs have kept none of the same documents."
        )
    if any(e.method == OVER_SEEDS and e.p_value is None for e in estimates):
        notes.append(
            "Not tested: all seeds differ by the same amount, which leaves no spread to judge by."
        )
    return notes
