"""Entries of a ladder on losses whose multiplier is known."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lit_entrodrop.commands.compare.judging.ladder import LadderResults, judge_ladder
from lit_entrodrop.commands.compare.measuring.measures import RunResult
from lit_entrodrop.commands.compare.planning.ladder import Ladder
from lit_entrodrop.commands.report.comparison_sections.ladder import ladder_figure

LADDER = Ladder((0.25, 0.5, 1.0), at=0.5)
TOKENS = {0.25: 100, 0.5: 200, 1.0: 400}
CURVE = (4.0, 3.6, 3.4)


def results(losses: list[float], nll: list[Any] | None = None) -> dict[int, RunResult]:
    documents = [{"best/loss": (each, COUNTS)} for each in nll or ()] or [{} for _ in losses]
    return {
        seed: RunResult(None, {"best/loss": loss}, of_seed, 100)
        for seed, (loss, of_seed) in enumerate(zip(losses, documents, strict=True))
    }


def judged(arm: list[float], curve: tuple[float, ...] = CURVE) -> tuple[dict[str, Any], list[str]]:
    rungs = {
        share: results([loss + seed / 100 for seed in range(len(arm))])
        for share, loss in zip(TOKENS, curve, strict=True)
    }
    found = LadderResults(LADDER, "plain", TOKENS, rungs, {"a": results(arm)})
    return judge_ladder(found), found.notes()


COUNTS = np.full(40, 10)


def test_multiplier_is_read_off_the_curve() -> None:
    ladder, notes = judged([3.5, 3.5 + 0.02])
    assert [rung["tokens"] for rung in ladder["rungs"]] == [100, 200, 400]
    assert ladder["rungs"][0]["values"] == [4.0, 4.01]
    arm = ladder["arms"]["a"]
    expected = np.sqrt(2**0.5 * 2**0.45)
    assert arm["multiplier"] == pytest.approx(expected)
    assert (arm["method"], arm["limits"], arm["bound"]) == ("paired t over seeds", [0.5, 2.0], None)
    low, high = arm["interval"]
    text = f"a is worth as much as 1.39 times the text (95% {low:.2f} to {high:.2f})."
    assert arm["sentence"] == text
    [note] = notes
    assert "plain was trained on 25%, 50% and 100% of the training text" in note


def test_arm_on_the_smallest_part_may_be_worth_less_than_its_text() -> None:
    rungs = {0.5: results([3.6]), 1.0: results([3.4])}
    ladder = Ladder((0.5, 1.0), at=0.5)
    found = LadderResults(ladder, "plain", {0.5: 200, 1.0: 400}, rungs, {"a": results([3.7])})
    text = judge_ladder(found)["arms"]["a"]["sentence"]
    assert text.startswith("a is worth less than the text itself: its loss is above")


@pytest.mark.parametrize(
    ("losses", "curve", "sentence"),
    [
        (
            [3.0, 3.0],
            CURVE,
            "a is worth more than 2 times the text: its loss is below that of pl",
        ),
        ([4.5, 4.5], CURVE, "a is worth less than 0.5 times the text: its loss is above that of"),
        (
            [3.5],
            CURVE,
            "1.41 times the text (no interval, as there is one seed without losses of d",
        ),
        ([3.38, 3.5], CURVE, "times the text (no interval, as some seeds are beyond the curve"),
        ([3.5, 3.35], CURVE, "times the text (no interval, as some seeds are beyond the curve"),
        ([3.5, 3.51], (3.4, 3.6, 4.0), "a has no multiplier: more text does not lower the loss of"),
    ],
)
def test_nothing_is_extrapolated(
    losses: list[float], curve: tuple[float, ...], sentence: str
) -> None:
    ladder, _ = judged(losses, curve)
    arm = ladder["arms"]["a"]
    assert sentence in arm["sentence"]
    assert arm["interval"] is None


def test_curve_that_rises_in_part_is_noted() -> None:
    ladder, notes = judged([3.5, 3.51], (4.0, 3.3, 3.4))
    assert "It was replaced by the closest curve that does not rise." in notes[1]
    assert ladder["arms"]["a"]["multiplier"] == pytest.approx(0.5 * 2 ** (0.5 / 0.65), rel=0.02)


def test_one_seed_takes_documents() -> None:
    difficulty = np.random.default_rng(0).normal(0, 0.5, 40)
    own = [(level + difficulty) * COUNTS for level in (3.5, *CURVE)]
    found = [results([float(nll.sum() / COUNTS.sum())], [nll]) for nll in own]
    rungs = dict(zip(TOKENS, found[1:], strict=True))
    ladder = judge_ladder(LadderResults(LADDER, "plain", TOKENS, rungs, {"a": found[0]}))
    arm = ladder["arms"]["a"]
    assert (arm["method"], arm["samples"]) == ("bootstrap over documents", 40)
    # All models differ by the same amount on each document.
    assert arm["interval"] == pytest.approx([2**0.5, 2**0.5])


def test_figure_says_what_it_shows(tmp_path: Path) -> None:
    ladder, _ = judged([3.5, 3.52])
    figure = ladder_figure({"split": "test", "ladder": ladder}, tmp_path, "ladder")
    assert figure is not None
    assert "a is worth as much as 1.39 times the text" in figure.wide
    assert "3.605 on 200 tokens" in figure.narrow
    assert "a 1.39×" in figure.wide
    assert (tmp_path / "ladder.png").exists()
    assert ladder_figure({"split": "test", "ladder": None}, tmp_path, "ladder") is None
