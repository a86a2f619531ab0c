"""Verdicts on results that are made up, so that it is known what they must be."""

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rich.console import Console

from lit_entrodrop.commands.compare.judging.analysis import (
    ArmTrial,
    estimate,
    find_differences,
    pair_trials,
    select_trials,
)
from lit_entrodrop.commands.compare.judging.results import ComparisonInputs, judge
from lit_entrodrop.commands.compare.judging.tables import show
from lit_entrodrop.commands.compare.measuring.measures import SCORE, RunResult
from lit_entrodrop.runs.task_scores import ItemScore

SEEDS = range(5)
NOISE = np.random.default_rng(0).normal(0, 0.01, (3, len(SEEDS)))
SHARED = np.random.default_rng(1).normal(0, 0.05, len(SEEDS))


def result(loss: float, validation: float | None = None, **values: float) -> RunResult:
    found = {SCORE: loss if validation is None else validation, "best/loss": loss}
    return RunResult(Path("no/such/run"), {**found, "last/loss": loss + 0.1, **values}, {}, 100)


def trial(
    arm: str, level: float, row: int, strength: Mapping[str, Any] = {}, **v: float
) -> ArmTrial:
    losses = level + SHARED + NOISE[row]
    return ArmTrial(arm, dict(strength), {s: result(float(losses[s]), **v) for s in SEEDS})


def with_documents(arm: str, nll: Any, tokens: Any) -> ArmTrial:
    documents = {"best/loss": (np.asarray(nll, float), np.asarray(tokens))}
    loss = float(np.sum(nll) / np.sum(tokens))
    values = {SCORE: loss, "best/loss": loss}
    return ArmTrial(arm, {}, {0: RunResult(Path("no/such/run"), values, documents, 100)})


def judged(trials: list[ArmTrial], **settings: Any) -> dict[str, Any]:
    defaults: dict[str, Any] = {"contrasts": (), "split": "test"}
    return judge(ComparisonInputs("t", "plain", trials=trials, **{**defaults, **settings}), Path())


def with_items(arm: str, scores: list[float], first: int = 0) -> ArmTrial:
    items = [ItemScore("", f"question {first + n}", ["a"], "", s) for n, s in enumerate(scores)]
    values = {SCORE: 3.0, "best/loss": 3.0, "best/task_contains": float(np.mean(scores))}
    found = RunResult(Path("no/such/run"), values, {}, 100, {"best/task_contains": items})
    return ArmTrial(arm, {}, {0: found})


def test_scores_are_compared_item_by_item_and_higher_is_better() -> None:
    plain, good = [0.0, 1.0] * 15, [1.0] * 30
    arms = judged([with_items("plain", plain), with_items("good", good)])["arms"]
    score = arms["good"]["metrics"]["best/task_contains"]
    assert score["difference"] == pytest.approx(0.5)
    assert score["interval"][0] < 0.5 < score["interval"][1]
    assert (score["verdict"], score["samples"]) == ("better", 30)
    # A test of pairs needs the same items.
    arms = judged([with_items("plain", plain), with_items("other", good, first=1)])["arms"]
    assert arms["other"]["metrics"]["best/task_contains"]["verdict"] == "not tested"


def test_clear_differences_are_told() -> None:
    trials = [trial("plain", 3.8, 0), trial("good", 3.6, 1), trial("bad", 4.0, 2)]
    arms = judged(trials)["arms"]
    assert [arms[name]["verdict"] for name in arms] == [None, "better", "worse"]
    sentence = "good is better than plain at the best epoch, difference -0.19"
    assert arms["good"]["sentence"].startswith(sentence)


def test_none_is_shown_between_equals() -> None:
    trials = [trial("plain", 3.8, 0), trial("same", 3.8, 1)]
    assert judged(trials)["arms"]["same"]["verdict"] == "no difference shown"


def test_p_values_are_corrected_for_the_number_of_pairs() -> None:
    levels = {"a": 3.786, "b": 3.5}
    alone = find_differences(
        pair_trials(
            t := [trial("plain", 3.8, 0), trial("a", levels["a"], 1)], select_trials(t), "plain", []
        )
    )
    many = [*t, trial("b", levels["b"], 2)]
    together = find_differences(pair_trials(many, select_trials(many), "plain", [("b", "a")]))
    assert len(together) == 3
    own, corrected = alone[0]["best/loss"], together[0]["best/loss"]
    assert own.p_corrected == own.estimate.p_value == corrected.estimate.p_value
    assert own.p_corrected is not None
    assert corrected.p_corrected == pytest.approx(own.p_corrected)
    # The largest of three stays; the smallest is tripled.
    smallest = together[1]["best/loss"]
    assert smallest.estimate.p_value is not None
    assert smallest.p_corrected is not None
    assert smallest.p_corrected >= 2 * smallest.estimate.p_value


def test_pair_that_is_asked_for_twice_counts_once() -> None:
    trials = [trial("plain", 3.8, 0), trial("a", 3.79, 1), trial("b", 3.6, 2)]
    twice = [("a", "plain"), ("plain", "b"), ("a", "b"), ("b", "a")]
    comparison, once = judged(trials, contrasts=twice), judged(trials, contrasts=[("a", "b")])
    assert comparison == once
    assert [(c["arm"], c["against"]) for c in comparison["contrasts"]] == [
        ("a", "plain"),
        ("b", "plain"),
        ("a", "b"),
    ]


def test_choice_is_by_validation() -> None:
    lucky = ArmTrial("a", {"x": 1}, {0: result(3.0, validation=3.9)})
    honest = ArmTrial("a", {"x": 2}, {0: result(3.5, validation=3.6)})
    assert select_trials([lucky, honest])["a"] is honest


def test_other_seeds_than_those_of_the_selection_do_not_select() -> None:
    def trial(x: int, losses: list[float]) -> ArmTrial:
        results = {seed: result(9.9, validation=loss) for seed, loss in enumerate(losses)}
        return ArmTrial("a", {"x": x}, results, strength_seeds=(0,))

    first, second = trial(1, [3.5, 9.0]), trial(2, [3.6])
    assert select_trials([first, second])["a"] is first
    comparison = judged([first, second, ArmTrial("plain", {}, first.results, (0,))])
    assert comparison["seeds"] == [0, 1]
    assert comparison["strength_seeds"] == [0]
    assert [each["score"] for each in comparison["arms"]["a"]["trials"]] == [3.5, 3.6]
    note = "test split over all seeds, including seed 0."
    assert any(note in each for each in comparison["notes"])


def test_runs_with_averages_are_counted_at_the_selected_strength() -> None:
    def trial(x: int, losses: list[float]) -> ArmTrial:
        results = {seed: replace(result(loss), averaged=True) for seed, loss in enumerate(losses)}
        return ArmTrial("a", {"x": x}, results, strength_seeds=(0,))

    plain = ArmTrial("plain", {}, {0: result(3.6), 1: result(3.7)}, strength_seeds=(0,))
    comparison = judged([plain, trial(1, [3.5, 3.4]), trial(2, [3.6])])
    assert any("averaged weights in a (2 of 2 runs);" in note for note in comparison["notes"])


def test_control_is_compared_at_its_best_and_at_the_same_strength() -> None:
    trials = [
        trial("plain", 3.8, 0),
        trial("ours", 3.6, 1, {"x": 0.3}, drop_rate=0.15),
        trial("ours", 3.7, 1, {"x": 0.6}, drop_rate=0.30),
        trial("random", 3.8, 2, {"x": 0.3}, drop_rate=0.15),
        trial("random", 3.7, 2, {"x": 0.6}, drop_rate=0.30),
    ]
    comparison = judged(trials, contrasts=[("ours", "random")])
    own_best, matched = [each for each in comparison["contrasts"] if each["is_contrast"]]
    assert own_best["strengths"] == ["x=0.3", "x=0.6"]
    assert not own_best["is_matched"]
    assert "drop rates do not match: 15.0% and 30.0%" in own_best["sentence"]
    assert matched["strengths"] == ["x=0.3", "x=0.3"]
    assert matched["verdict"] == "better"
    assert "drop rates match: 15.0% and 15.0%" in matched["sentence"]
    assert matched["against"] == "random at x=0.3"


def test_one_seed_takes_documents() -> None:
    tokens = np.full(50, 10)
    nll = np.random.default_rng(2).normal(38, 3, 50)
    one, other = with_documents("a", nll - 1, tokens), with_documents("plain", nll, tokens)
    [pair] = pair_trials([one, other], select_trials([one, other]), "plain", [])
    found = estimate(pair, "best/loss")
    assert found.method == "bootstrap over documents"
    assert found.difference == pytest.approx(-0.1)
    # Of other documents, or other tokens, nothing can be paired.
    unlike = with_documents("plain", nll[:40], tokens[:40])
    [pair] = pair_trials([one, unlike], select_trials([one, unlike]), "plain", [])
    assert estimate(pair, "best/loss").low is None


def test_nothing_is_claimed_without_an_interval() -> None:
    trials = [ArmTrial("plain", {}, {0: result(3.8)}), ArmTrial("a", {}, {0: result(3.0)})]
    comparison = judged(trials, split="validation")
    assert comparison["arms"]["a"]["verdict"] == "not tested"
    assert any(note.startswith("Not tested: with one seed") for note in comparison["notes"])


def test_nothing_is_claimed_without_a_spread() -> None:
    trials = [
        ArmTrial(arm, {}, {seed: result(loss + seed / 2) for seed in (0, 1)})
        for arm, loss in (("plain", 3.5), ("a", 3.0))
    ]
    comparison = judged(trials)
    assert comparison["arms"]["a"]["verdict"] == "not tested"
    assert comparison["arms"]["a"]["metrics"]["best/loss"]["interval"] is None
    assert any("all seeds differ by the same amount" in note for note in comparison["notes"])


def test_unequal_budgets_are_told() -> None:
    longer = RunResult(Path("no/such/run"), result(3.7).values, {}, 200)
    trials = [ArmTrial("plain", {}, {0: result(3.8)}), ArmTrial("a", {}, {0: longer})]
    assert "Not matched: the runs took between 100 and 200 steps." in judged(trials)["notes"]


def test_results_are_plain_json_and_fit_a_table(capsys: pytest.CaptureFixture[str]) -> None:
    values = {"drop_rate": 0.15, "seconds_per_step": 0.2, "last/gap": 0.5}
    trials = [
        trial("plain", 3.8, 0, {}, drop_rate=0.1, seconds_per_step=0.1, **{"last/gap": 0.25}),
        trial("[ours]", 3.6, 1, {"x": 0.3}, **values),
    ]
    comparison = judged(trials)
    assert json.loads(json.dumps(comparison, allow_nan=False)) == comparison
    assert comparison["schema"] == 2
    show(comparison, Console(width=90))
    printed = capsys.readouterr().out
    for words in ("[ours]", "x=0.3", "better", "baseline", "over 5 seeds"):
        assert words in printed
    # Losses with the interval, all others with the difference.
    for metric in ("best/loss", "last/loss"):
        found = comparison["arms"]["[ours]"]["metrics"][metric]
        low, high = found["interval"]
        assert f"{found['mean']:.4f}" in printed
        assert f"{found['difference']:+.4f} [{low:+.4f}, {high:+.4f}]" in printed
    for words in ("0.5000 (+0.2500)", "15.0% (+5.0 points)", "0.2 (+0.1)"):
        assert words in printed
