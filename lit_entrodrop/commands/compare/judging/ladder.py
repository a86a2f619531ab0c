"""Unique-data multipliers of arms, and their entry in ``comparison.json``."""

from collections.abc import Mapping
from dataclasses import dataclass
from math import inf
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lit_entrodrop.commands.compare.judging.analysis import shared_documents
from lit_entrodrop.commands.compare.measuring.measures import RunResult
from lit_entrodrop.commands.compare.planning.ladder import Ladder
from lit_entrodrop.commands.report.rendering.formatting import LOSS
from lit_entrodrop.evaluation.data_multiplier import (
    Multiplier,
    multiplier_over_documents,
    multiplier_over_seeds,
    not_rising,
)
from lit_entrodrop.evaluation.diagnosis.explanation import enumeration

Results = Mapping[int, RunResult]


@dataclass(frozen=True)
class LadderResults:
    """Results of the runs of a ladder.

    Args:
        ladder: Shares of the training text.
        baseline: Arm that was trained on all shares.
        tokens: Number of training tokens of each share.
        rungs: Results of the baseline by share, in ascending order, and seed.
        arms: Results of the other arms, trained on one share, by seed.
    """

    ladder: Ladder
    baseline: str
    tokens: Mapping[float, int]
    rungs: Mapping[float, Results]
    arms: Mapping[str, Results]

    @property
    def seeds(self) -> list[int]:
        """Seeds of the runs on the whole text."""
        return list(self.rungs[self.ladder.shares[-1]])

    @property
    def curves(self) -> NDArray[np.float64]:
        """Losses of the baseline, [seeds, rungs]."""
        return np.transpose([self.losses(runs) for runs in self.rungs.values()])

    def losses(self, results: Results) -> list[float]:
        """Return the loss of each seed at the best epoch."""
        return [results[seed].values[LOSS] for seed in self.seeds]

    def notes(self) -> list[str]:
        """State how the runs of the ladder differ, and what qualifies the multipliers."""
        shares = enumeration([f"{share:.0%}" for share in self.ladder.shares])
        notes = [
            f"Multiplier: {self.baseline} was trained on {shares} of the training text, the other "
            f"arms on {self.ladder.at:.0%}, at the strengths selected on the whole text. All had "
            "the same number of epochs, hence fewer steps on less text, and the best epoch was "
            "selected for each."
        ]
        mean = self.curves.mean(0)
        if (np.diff(mean) > 0).any() and not self.is_level:
            notes.append(
                f"The loss of {self.baseline} rises between two parts of the text. It was replaced "
                "by the closest curve that does not rise."
            )
        return notes

    @property
    def is_level(self) -> bool:
        """Whether more text does not lower the mean loss of the baseline."""
        fitted = not_rising(self.curves.mean(0))
        return bool(fitted[0] == fitted[-1])


def judge_ladder(results: LadderResults) -> dict[str, Any]:
    """Return the entry ``ladder`` of ``comparison.json``."""
    return {
        "baseline": results.baseline,
        "metric": LOSS,
        "seeds": results.seeds,
        "at": results.ladder.at,
        "rungs": [
            {"share": share, "tokens": results.tokens[share], **_losses(results, runs)}
            for share, runs in results.rungs.items()
        ],
        "arms": {arm: _arm(results, arm) for arm in results.arms},
    }


def estimate_multiplier(results: LadderResults, arm: str) -> Multiplier | None:
    """Estimate the multiplier of an arm over seeds; with one seed, over documents.

    There is none if more text does not lower the loss of the baseline.
    """
    if results.is_level:
        return None
    shares = results.ladder.shares
    tokens, at = [results.tokens[share] for share in shares], shares.index(results.ladder.at)
    if len(results.seeds) == 1:
        [seed] = results.seeds
        runs = [results.arms[arm][seed], *(results.rungs[share][seed] for share in shares)]
        if (documents := shared_documents(runs, LOSS)) is not None:
            (nll, *curve), counts = documents
            return multiplier_over_documents(nll, curve, counts, tokens, at)
    losses = results.losses(results.arms[arm])
    return multiplier_over_seeds(losses, results.curves, tokens, at)


def _arm(results: LadderResults, arm: str) -> dict[str, Any]:
    found = estimate_multiplier(results, arm)
    tokens = [results.tokens[share] for share in results.ladder.shares]
    limits = [count / results.tokens[results.ladder.at] for count in (tokens[0], tokens[-1])]
    has_interval = found is not None and found.low is not None
    return {
        **_losses(results, results.arms[arm]),
        "multiplier": None if found is None else _inside(found.value),
        "interval": [_inside(found.low), _inside(found.high)] if found and has_interval else None,
        "limits": limits,
        "bound": None if found is None else {0: "less", inf: "more"}.get(found.value),
        "method": None if found is None else found.method,
        "samples": 0 if found is None else found.samples,
        "sentence": _sentence(results, arm, found, limits),
    }


def _losses(results: LadderResults, of_runs: Results) -> dict[str, Any]:
    values = results.losses(of_runs)
    return {"mean": float(np.mean(values)), "values": values}


def _inside(value: float | None) -> float | None:
    return None if value in (None, 0, inf) else value


def _sentence(
    results: LadderResults, arm: str, found: Multiplier | None, limits: list[float]
) -> str:
    baseline, (least, most) = results.baseline, limits
    if found is None:
        return f"{arm} has no multiplier: more text does not lower the loss of {baseline}."
    if found.value == inf:
        return (
            f"{arm} is worth more than {most:.2g} times the text: its loss is below that of "
            f"{baseline} on the whole text, and nothing is extrapolated."
        )
    if found.value == 0:
        # An arm on the smallest part has the text of the baseline's run there.
        amount = "the text itself" if least == 1 else f"{least:.2g} times the text"
        return (
            f"{arm} is worth less than {amount}: its loss is above that of {baseline} on the "
            "smallest part, and nothing is extrapolated."
        )
    return (
        f"{arm} is worth as much as {found.value:.2f} times the text ({_interval(found, limits)})."
    )


def _interval(found: Multiplier, limits: list[float]) -> str:
    if found.low is None or found.high is None:
        if found.samples > 1:
            return "no interval, as some seeds are beyond the curve of the baseline"
        return "no interval, as there is one seed without losses of documents"
    low = f"{found.low:.2f}" if found.low else f"less than {limits[0]:.2g}"
    high = f"more than {limits[1]:.2g}" if found.high == inf else f"{found.high:.2f}"
    return f"95% {low} to {high}"
