"""Content of ``tune.json``, and the sentences about it on the terminal, the page and the recipe."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from lit_entrodrop.commands.compare.judging.analysis import ArmTrial
from lit_entrodrop.commands.report.comparison_sections.conclusion import signed
from lit_entrodrop.commands.tune.result.decision import use_winner
from lit_entrodrop.commands.tune.result.finals import Finalist, Finals
from lit_entrodrop.commands.tune.search.budget import duration
from lit_entrodrop.commands.tune.search.outcome import TrialOutcome
from lit_entrodrop.commands.tune.space.sample import PLAIN
from lit_entrodrop.evaluation.statistics import Estimate

SCHEMA = 1


def summarize(
    finals: Finals,
    trials: Sequence[TrialOutcome],
    importances: Mapping[str, float],
    seconds: float,
    folder: Path,
) -> dict[str, Any]:
    """Return the content of ``tune.json``, with folders relative to ``folder``."""
    return {
        "schema": SCHEMA,
        "verdict": finals.finding.verdict,
        "sentence": verdict_sentence(finals),
        "recipe": finals.chosen.name,
        "test": {"winner": finals.winner.name, "against": PLAIN, **finals.finding.to_dict()},
        "cost": cost(finals, trials, seconds),
        "importances": dict(importances),
        "finalists": {
            each.name: _finalist(each, finals.validated[each.name], folder)
            for each in (finals.plain, *finals.others)
        },
        "diverged": list(finals.diverged),
        "trials": [
            {
                "name": trial.name,
                "state": trial.state,
                "method": trial.sample.label,
                "description": trial.sample.description,
                "values": dict(trial.params),
                "score": trial.score,
                "steps": trial.steps,
                "seconds": round(trial.seconds, 1),
            }
            for trial in trials
        ],
    }


def cost(finals: Finals, trials: Sequence[TrialOutcome], seconds: float) -> dict[str, float]:
    """Return what search and final runs have cost, in optimizer steps of one run of the config."""
    # The first trial has the epochs of the config.
    one = next(trial.total_steps for trial in trials if trial.total_steps)
    search = sum(trial.steps for trial in trials)
    results = [each for trial in finals.validated.values() for each in trial.results.values()]
    final = sum(each.total_steps for each in results)
    return {"search": search / one, "final": final / one, "seconds": seconds}


def verdict_sentence(finals: Finals) -> str:
    """State the verdict, without a final period."""
    winner, found = finals.winner.name, finals.finding.estimate
    if use_winner(finals.finding):
        return f"{winner} is better than plain by {gain(found)}"
    if finals.finding.verdict == "worse":
        return f"No gain: {winner} is worse than plain by {gain(found, -1)}"
    return f"No gain over plain shown: the loss of {winner} differs by {gain(found, -1)}"


def gain(found: Estimate, sign: int = 1) -> str:
    """Return how much lower a loss is, with its interval.

    >>> gain(Estimate(-0.05, -0.07, -0.03))
    '0.050 nats per token (95% interval 0.030 to 0.070)'
    """
    text = f"{signed(-sign * found.difference)} nats per token".lstrip("+")
    if found.low is None or found.high is None:
        return text
    low, high = sorted((-sign * found.low, -sign * found.high))
    ends = [signed(end).lstrip("+") for end in (low, high)]
    return f"{text} (95% interval {ends[0]} to {ends[1]})"


def cost_sentence(costs: Mapping[str, float]) -> str:
    """State the cost of a search.

    >>> cost_sentence({"search": 21.04, "final": 12.6, "seconds": 2400})
    'The search cost 21.0 times one run of the config, the final runs 12.6 times, in 40 min 0 s.'
    """
    return (
        f"The search cost {costs['search']:.1f} times one run of the config, the final runs "
        f"{costs['final']:.1f} times, in {duration(costs['seconds'])}."
    )


def counts_sentence(trials: Sequence[TrialOutcome]) -> str:
    """State how many trials there were, and how they ended."""
    plain = sum(trial.study == PLAIN for trial in trials)
    states = [trial.state for trial in trials]
    ended = ", ".join(
        f"{states.count(state)} {state}"
        for state in ("finished", "pruned", "failed")
        if state in states
    )
    return (
        f"{len(trials)} trials, {plain} of plain fine-tuning and {len(trials) - plain} of the "
        f"whole space: {ended}."
    )


def _finalist(finalist: Finalist, validated: ArmTrial, folder: Path) -> dict[str, Any]:
    return {
        "trial": finalist.trial.name,
        "description": finalist.trial.sample.description,
        "search_score": finalist.trial.score,
        "score": validated.score,
        "runs": [
            {"seed": run.seed, "folder": os.path.relpath(run.folder, folder)}
            for run in finalist.runs
        ],
    }
