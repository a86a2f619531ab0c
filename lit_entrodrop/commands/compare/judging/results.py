"""Content of ``comparison.json``: arms, differences, verdicts and notes."""

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from lit_entrodrop.commands.compare.judging.analysis import (
    ArmPair,
    ArmTrial,
    Finding,
    find_differences,
    pair_trials,
    select_trials,
)
from lit_entrodrop.commands.compare.judging.ladder import LadderResults, judge_ladder
from lit_entrodrop.commands.compare.judging.notes import method_notes, trial_notes
from lit_entrodrop.commands.compare.judging.sentences import sentence
from lit_entrodrop.commands.compare.measuring.imported_runs import SCHEMA
from lit_entrodrop.commands.report.rendering.formatting import LOSS
from lit_entrodrop.evaluation.statistics import CONFIDENCE

FILE_NAME = "comparison.json"


@dataclass(frozen=True)
class ComparisonInputs:
    """Trials of all arms, how to compare them, and notes on how the runs were made."""

    title: str
    baseline: str
    contrasts: Sequence[tuple[str, str]]
    trials: Sequence[ArmTrial]
    split: str
    notes: Sequence[str] = ()
    runs: Sequence[Mapping[str, Any]] = ()  # entries of all runs, also of strengths not selected
    ladder: LadderResults | None = None


def judge(inputs: ComparisonInputs, folder: Path) -> dict[str, Any]:
    """Return the content of ``comparison.json``, with folders of runs relative to ``folder``."""
    selected = select_trials(inputs.trials)
    pairs = pair_trials(inputs.trials, selected, inputs.baseline, inputs.contrasts)
    findings = find_differences(pairs)
    against_baseline = {
        pair.first.arm: (pair, found)
        for pair, found in zip(pairs, findings, strict=True)
        if not pair.is_contrast
    }
    ladder = inputs.ladder
    of_ladder = [] if ladder is None else ladder.notes()
    notes = [*inputs.notes, *trial_notes(inputs.trials, inputs.split), *of_ladder]
    return {
        "schema": SCHEMA,
        "title": inputs.title,
        "split": inputs.split,
        "selected_by": next(iter(inputs.trials[0].results.values())).selected_by,
        "baseline": inputs.baseline,
        "confidence": CONFIDENCE,
        "seeds": sorted({seed for trial in inputs.trials for seed in trial.results}),
        "strength_seeds": sorted({s for trial in inputs.trials for s in trial.selection_seeds}),
        "arms": {
            name: _arm(trial, inputs.trials, against_baseline.get(name), folder)
            for name, trial in selected.items()
        },
        "ladder": None if ladder is None else judge_ladder(ladder),
        "runs": list(inputs.runs),
        "contrasts": [_contrast(pair, found) for pair, found in zip(pairs, findings, strict=True)],
        "notes": [*notes, *method_notes([found[LOSS].estimate for found in findings])],
    }


def _arm(
    trial: ArmTrial,
    trials: Iterable[ArmTrial],
    against: tuple[ArmPair, Mapping[str, Finding]] | None,
    folder: Path,
) -> dict[str, Any]:
    pair, findings = against or (None, {})
    tried = [
        {
            "name": each.name,
            "strength": each.strength,
            "score": each.score,
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
            {"seed": seed, "folder": _relative(result.folder, folder), **result.values}
            for seed, result in trial.results.items()
        ],
        "metrics": {
            metric: _metric(trial, metric, findings.get(metric)) for metric in trial.metrics
        },
    }


def _relative(path: Path | None, folder: Path) -> str | None:
    return None if path is None else os.path.relpath(path, folder)


def _metric(trial: ArmTrial, metric: str, finding: Finding | None) -> dict[str, Any]:
    values = trial.values(metric, list(trial.results))
    found = {} if finding is None else finding.to_dict()
    return {"mean": float(np.mean(values)), "values": values, **found}


def _contrast(pair: ArmPair, findings: Mapping[str, Finding]) -> dict[str, Any]:
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
