"""Differences between arms, with confidence intervals and verdicts."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lit_entrodrop.commands.compare.measuring.measures import SCORE, RunResult
from lit_entrodrop.commands.compare.planning.settings import Strength
from lit_entrodrop.commands.compare.planning.strengths import trial_name
from lit_entrodrop.evaluation.metrics.token_metric import is_better_if_lower
from lit_entrodrop.evaluation.statistics import (
    DifferenceVerdict,
    Estimate,
    holm,
    paired_over_documents,
    paired_over_items,
    paired_over_seeds,
    verdict,
)
from lit_entrodrop.runs.metric_name import MetricName

# Metrics whose lower value is neither better nor worse.
WITHOUT_VERDICT = ("best_epoch", "drop_rate", "gap", "clean_train_loss")


@dataclass(frozen=True)
class ArmTrial:
    """Results of an arm at one strength, by seed.

    Args:
        arm: Name of the arm.
        strength: Values of the settings that are tried.
        results: Metrics of the runs, by seed.
        strength_seeds: Seeds on which the strength is selected. Default: all.
    """

    arm: str
    strength: Strength
    results: dict[int, RunResult]
    strength_seeds: tuple[int, ...] | None = None

    @property
    def name(self) -> str:
        """Name of the strength, empty if the arm has none."""
        return trial_name(self.strength)

    @property
    def score(self) -> float:
        """Mean over ``selection_seeds`` of the best score; lower is better."""
        return float(np.mean(self.values(SCORE, self.selection_seeds)))

    @property
    def selection_seeds(self) -> list[int]:
        """Seeds of the score, by which a trial is selected."""
        selecting = self.results if self.strength_seeds is None else self.strength_seeds
        return [seed for seed in self.results if seed in selecting]

    @property
    def metrics(self) -> list[str]:
        """Names of the metrics that all runs have."""
        first, *others = (result.values for result in self.results.values())
        shared = [name for name in first if all(name in other for other in others)]
        return [name for name in shared if name != SCORE]

    @property
    def drop_rate(self) -> float:
        """Mean share of the alterable tokens that were dropped."""
        rates = [result.values.get("drop_rate", 0.0) for result in self.results.values()]
        return float(np.mean(rates))

    def values(self, metric: str, seeds: Sequence[int]) -> list[float]:
        """Return the value of a metric for each seed."""
        return [self.results[seed].values[metric] for seed in seeds]


@dataclass(frozen=True)
class ArmPair:
    """Two trials to compare: differences are first minus second."""

    first: ArmTrial
    second: ArmTrial
    is_contrast: bool = False  # requested in addition to comparisons with the baseline
    is_matched: bool = False  # the second arm is taken at the strength of the first

    @property
    def seeds(self) -> list[int]:
        """Seeds of both trials."""
        return [seed for seed in self.first.results if seed in self.second.results]

    @property
    def metrics(self) -> list[str]:
        """Metrics of both trials."""
        return [name for name in self.first.metrics if name in self.second.metrics]


def select_trials(trials: Sequence[ArmTrial]) -> dict[str, ArmTrial]:
    """Select the trial with the best score of each arm."""
    return {
        arm: min((t for t in trials if t.arm == arm), key=lambda trial: trial.score)
        for arm in dict.fromkeys(trial.arm for trial in trials)
    }


def pair_trials(
    trials: Sequence[ArmTrial],
    selected: Mapping[str, ArmTrial],
    baseline: str,
    contrasts: Sequence[tuple[str, str]],
) -> list[ArmPair]:
    """Return the pairs to compare: each arm with the baseline, then the contrasts.

    A contrast compares the selected trials of two arms. If the second arm also has a trial at the
    strength of the first, that is compared too: the drop rates of a control match only there.
    A pair that occurs twice, in either order, is kept once: it would count twice in the correction
    of p values.

    Raises:
        ValueError: If the trials of a pair share no seed.
    """
    pairs = [ArmPair(selected[name], selected[baseline]) for name in selected if name != baseline]
    for first, second in contrasts:
        pairs.append(ArmPair(selected[first], selected[second], is_contrast=True))
        strength = selected[first].strength
        same = [each for each in trials if each.arm == second and each.strength == strength]
        if strength and same and same[0] is not selected[second]:
            pairs.append(ArmPair(selected[first], same[0], is_contrast=True, is_matched=True))
    distinct: dict[frozenset[int], ArmPair] = {}
    for pair in pairs:
        distinct.setdefault(frozenset((id(pair.first), id(pair.second))), pair)
        if not pair.seeds:
            own, others = sorted(pair.first.results), sorted(pair.second.results)
            raise ValueError(
                f"runs: expected arms with a common seed, got seeds {own} of {pair.first.arm} "
                f"and {others} of {pair.second.arm}: train the missing runs or compare other arms"
            )
    return list(distinct.values())


def estimate(pair: ArmPair, metric: str) -> Estimate:
    """Estimate a difference over seeds; with one seed, over documents or the items of a task."""
    first, second = (trial.values(metric, pair.seeds) for trial in (pair.first, pair.second))
    if len(pair.seeds) > 1:
        return paired_over_seeds(first, second)
    [seed] = pair.seeds
    documents = shared_documents([pair.first.results[seed], pair.second.results[seed]], metric)
    if documents is not None:
        (first_nll, second_nll), tokens = documents
        return paired_over_documents(first_nll, second_nll, tokens)
    items = [trial.results[seed].items.get(metric, []) for trial in (pair.first, pair.second)]
    asked = [[(each.prompt, each.answers) for each in scores] for scores in items]
    if asked[0] == asked[1] and len(asked[0]) > 1:
        return paired_over_items(*([each.score for each in scores] for scores in items))
    return Estimate(first[0] - second[0])


def shared_documents(
    results: Sequence[RunResult], metric: str
) -> tuple[list[NDArray[np.float64]], NDArray[np.int64]] | None:
    """Return the summed losses of the same documents in each run, and their numbers of tokens.

    Returns:
        Losses in nats, ``[D]`` for each run, and tokens ``[D]``; None if a run has not saved them,
        buckets or documents differ, or fewer than two documents have tokens.
    """
    known = [found for each in results if (found := each.documents.get(metric)) is not None]
    if len(known) < len(results):
        return None
    losses, counts = zip(*known, strict=True)
    same = all(np.array_equal(counts[0], others) for others in counts)
    return (list(losses), counts[0]) if same and (counts[0] > 0).sum() > 1 else None


@dataclass(frozen=True)
class Finding:
    """Difference of a pair in one metric, with the p value corrected for the number of pairs.

    The verdict is None for metrics whose lower value is neither better nor worse.
    """

    estimate: Estimate
    p_corrected: float | None
    verdict: DifferenceVerdict | None

    def to_dict(self) -> dict[str, Any]:
        """Return the entry in ``comparison.json``."""
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


def find_differences(pairs: Sequence[ArmPair]) -> list[dict[str, Finding]]:
    """Estimate all differences, correct their p values for the number of pairs, and judge them."""
    found: list[dict[str, Finding]] = [{} for _ in pairs]
    for metric in dict.fromkeys(name for pair in pairs for name in pair.metrics):
        estimates = {
            index: estimate(pair, metric)
            for index, pair in enumerate(pairs)
            if metric in pair.metrics
        }
        tested = {i: e.p_value for i, e in estimates.items() if e.p_value is not None}
        corrected = dict(zip(tested, holm(list(tested.values())), strict=True))
        for index, each in estimates.items():
            p_value = corrected.get(index)
            found[index][metric] = Finding(each, p_value, _judge(metric, each, p_value))
    return found


def _judge(metric: str, found: Estimate, p_value: float | None) -> DifferenceVerdict | None:
    kind = MetricName.parse(metric).kind
    if kind in WITHOUT_VERDICT:
        return None
    difference = found.difference if is_better_if_lower(metric) else -found.difference
    return verdict(difference, p_value)
