"""From the results of runs to differences, intervals and verdicts."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from lit_entrodrop.commands.compare.measures import BEST_VALIDATION, Result
from lit_entrodrop.commands.compare.planning import trial_name
from lit_entrodrop.commands.compare.settings import Strength
from lit_entrodrop.commands.report.formatting import LAST, LOSS
from lit_entrodrop.evaluation.metrics import all_token_metrics
from lit_entrodrop.evaluation.statistics import (
    Estimate,
    Verdict,
    holm,
    paired_over_documents,
    paired_over_seeds,
    verdict,
)
from lit_entrodrop.runs.metric_name import MetricName

# Drop rates that are further apart are not matched.
RATE_TOLERANCE = 0.05
# Less of it is neither better nor worse.
UNJUDGED = ("best_epoch", "drop_rate", "gap", "clean_train_loss")


@dataclass(frozen=True)
class Trial:
    """An arm with one strength.

    Args:
        arm: its name.
        strength: the settings that were tried.
        results: of its runs, by seed.
    """

    arm: str
    strength: Strength
    results: Mapping[int, Result]

    @property
    def name(self) -> str:
        """The strength in words, empty without any."""
        return trial_name(self.strength)

    @property
    def validation_loss(self) -> float:
        """Mean over seeds of the best validation loss, by which a trial is chosen."""
        return float(np.mean([result.values[BEST_VALIDATION] for result in self.results.values()]))

    @property
    def metrics(self) -> list[str]:
        """Names of the values that all its runs have."""
        first, *others = (result.values for result in self.results.values())
        shared = [name for name in first if all(name in other for other in others)]
        return [name for name in shared if name != BEST_VALIDATION]

    @property
    def drop_rate(self) -> float:
        """Mean share of alterable tokens that were dropped."""
        rates = [result.values.get("drop_rate", 0.0) for result in self.results.values()]
        return float(np.mean(rates))

    def values(self, metric: str, seeds: Sequence[int]) -> list[float]:
        """Return a value for each seed."""
        return [self.results[seed].values[metric] for seed in seeds]


@dataclass(frozen=True)
class Pair:
    """Two trials that are compared.

    Args:
        first: the one.
        second: the other, which is subtracted.
        is_contrast: asked for besides the comparisons with the baseline.
        is_matched: the other at the strength that was chosen for the one.
    """

    first: Trial
    second: Trial
    is_contrast: bool = False
    is_matched: bool = False

    @property
    def seeds(self) -> list[int]:
        """Those that both have."""
        return [seed for seed in self.first.results if seed in self.second.results]

    @property
    def metrics(self) -> list[str]:
        """Values that both have."""
        return [name for name in self.first.metrics if name in self.second.metrics]


def choose(trials: Sequence[Trial]) -> dict[str, Trial]:
    """Return the trial of each arm with the lowest validation loss, by the arm's name.

    Args:
        trials: of all arms.
    """
    chosen: dict[str, Trial] = {}
    for trial in trials:
        best = chosen.get(trial.arm)
        if best is None or trial.validation_loss < best.validation_loss:
            chosen[trial.arm] = trial
    return chosen


def pairs(
    trials: Sequence[Trial],
    chosen: Mapping[str, Trial],
    baseline: str,
    contrasts: Sequence[tuple[str, str]],
) -> list[Pair]:
    """Return what is compared: each arm with the baseline, then the contrasts.

    Each contrast is between the chosen trials; and, where the other arm was tried at the strength
    that was chosen for the first, once more at that, as a control is matched only then.
    What is compared already, either way round, is not compared again, as it would count twice
    among the p values.

    Args:
        trials: of all arms.
        chosen: one of each arm.
        baseline: name of an arm.
        contrasts: pairs of names.

    Raises:
        ValueError: if two of them share no seed.
    """
    found = [Pair(chosen[name], chosen[baseline]) for name in chosen if name != baseline]
    for first, second in contrasts:
        found.append(Pair(chosen[first], chosen[second], is_contrast=True))
        strength = chosen[first].strength
        same = [each for each in trials if each.arm == second and each.strength == strength]
        if strength and same and same[0] is not chosen[second]:
            found.append(Pair(chosen[first], same[0], is_contrast=True, is_matched=True))
    _require_common_seeds(found)
    return _distinct(found)


def _require_common_seeds(compared: Sequence[Pair]) -> None:
    for pair in compared:
        if not pair.seeds:
            ours, theirs = sorted(pair.first.results), sorted(pair.second.results)
            raise ValueError(
                f"runs: expected arms that share a seed, got {ours} of {pair.first.arm} and "
                f"{theirs} of {pair.second.arm}: train the missing ones, or compare others"
            )


def _distinct(compared: Sequence[Pair]) -> list[Pair]:
    found: dict[frozenset[int], Pair] = {}
    for pair in compared:
        found.setdefault(frozenset((id(pair.first), id(pair.second))), pair)
    return list(found.values())


def estimate(pair: Pair, metric: str) -> Estimate:
    """Estimate a difference over seeds, or of one seed over documents.

    Args:
        pair: of trials.
        metric: name of a value that both have.
    """
    ours, theirs = (trial.values(metric, pair.seeds) for trial in (pair.first, pair.second))
    if len(pair.seeds) > 1:
        return paired_over_seeds(ours, theirs)
    [seed] = pair.seeds
    documents = [trial.results[seed].documents.get(metric) for trial in (pair.first, pair.second)]
    if documents[0] is not None and documents[1] is not None:
        (our_nll, our_tokens), (their_nll, their_tokens) = documents  # type: ignore[misc]
        # Other buckets, or other documents, cannot be paired.
        if np.array_equal(our_tokens, their_tokens) and (our_tokens > 0).sum() > 1:
            return paired_over_documents(our_nll, their_nll, our_tokens)
    return Estimate(ours[0] - theirs[0])


@dataclass(frozen=True)
class Finding:
    """The difference of a pair in one metric, judged together with those of all other pairs.

    Args:
        estimate: of the difference.
        p_corrected: corrected for the number of pairs.
        verdict: in words; None where less is neither better nor worse.
    """

    estimate: Estimate
    p_corrected: float | None
    verdict: Verdict | None

    def to_dict(self) -> dict[str, Any]:
        """Return the finding as ``comparison.json`` keeps it."""
        has_interval = self.estimate.low is not None
        return {
            "difference": self.estimate.difference,
            "interval": [self.estimate.low, self.estimate.high] if has_interval else None,
            "p": self.estimate.p_value,
            "p_corrected": self.p_corrected,
            "method": self.estimate.method,
            "samples": self.estimate.samples,
            "verdict": self.verdict,
        }


def find_differences(compared: Sequence[Pair]) -> list[dict[str, Finding]]:
    """Estimate all differences, correct their p values for the number of pairs, and judge them.

    Args:
        compared: pairs of trials.

    Returns:
        Findings by metric, for each pair.
    """
    found: list[dict[str, Finding]] = [{} for _ in compared]
    for metric in dict.fromkeys(name for pair in compared for name in pair.metrics):
        estimates = {
            index: estimate(pair, metric)
            for index, pair in enumerate(compared)
            if metric in pair.metrics
        }
        tested = {i: e.p_value for i, e in estimates.items() if e.p_value is not None}
        corrected = dict(zip(tested, holm(list(tested.values())), strict=True))
        for index, each in estimates.items():
            p_value = corrected.get(index)
            found[index][metric] = Finding(each, p_value, _judge(metric, each, p_value))
    return found


def _judge(metric: str, found: Estimate, p_value: float | None) -> Verdict | None:
    kind = MetricName.parse(metric).kind
    if kind in UNJUDGED:
        return None
    known = all_token_metrics().get(kind)
    better_if_lower = known is None or known.lower_is_better
    return verdict(found.difference if better_if_lower else -found.difference, p_value)


def sentence(pair: Pair, findings: Mapping[str, Finding]) -> str:
    """Say in words what a pair has shown.

    Args:
        pair: of trials.
        findings: of it, by metric.
    """
    finding = findings[LOSS]
    other = pair.second.arm
    if pair.is_matched:
        other = f"{other} at the same strength ({pair.second.name})"
    difference = _with_interval(finding.estimate)
    if finding.verdict in ("better", "worse"):
        told = f"{pair.first.arm} is {finding.verdict} than {other}"
    else:
        told = f"{pair.first.arm} and {other}: {finding.verdict}"
    told += f" at their best epochs; the loss differs by {difference}"
    if finding.p_corrected is not None:
        told += f", corrected p = {finding.p_corrected:.2g}"
    return f"{told}{_on_last(findings)}{_on_rates(pair)}."


def _on_last(findings: Mapping[str, Finding]) -> str:
    # Who trains for a fixed budget, without validation, ends with this one.
    finding = findings.get(LAST)
    if finding is None:
        return ""
    return f"; at the last epoch {finding.verdict}: {_with_interval(finding.estimate)}"


def _on_rates(pair: Pair) -> str:
    rates = [trial.drop_rate for trial in (pair.first, pair.second)]
    if not pair.is_contrast or not all(rates):
        return ""
    told = f"{rates[0]:.1%} and {rates[1]:.1%} of alterable tokens dropped"
    if abs(rates[0] - rates[1]) <= RATE_TOLERANCE * max(rates):
        return f"; at matched rates: {told}"
    return f"; rates are not matched: {told}"


def _with_interval(found: Estimate) -> str:
    text = f"{found.difference:+.4f}"
    return text if found.low is None else f"{text} [95 %: {found.low:+.4f} to {found.high:+.4f}]"
