"""Opening of the page of a comparison."""

from typing import Any

import pytest

from lit_entrodrop.commands.report.comparison_sections.conclusion import conclude_comparison
from lit_entrodrop.commands.report.records.run_record import RunRecord, read_run
from lit_entrodrop.evaluation.statistics import OVER_DOCUMENTS, OVER_SEEDS
from tests.helpers.run_folder import write_run

SAME, BETTER, WORSE, UNTESTED = "no difference shown", "better", "worse", "not tested"
# Interval of the difference at the best and at the last epoch by verdict.
INTERVALS = {
    (SAME, "best"): [-0.01, 0.01],
    (SAME, "last"): [-0.02, 0.02],
    (BETTER, "best"): [-0.06, -0.02],
    (BETTER, "last"): [-0.09, -0.04],
    (WORSE, "best"): [0.02, 0.06],
    (WORSE, "last"): [0.04, 0.09],
    (UNTESTED, "best"): None,
    (UNTESTED, "last"): None,
}


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> RunRecord:
    return read_run("run", write_run(tmp_path_factory.mktemp("conclusion") / "run"))


def finding(verdict: str, moment: str, seeds: int = 1) -> dict[str, Any]:
    interval = INTERVALS[verdict, moment]
    return {
        "difference": sum(interval) / 2 if interval else -0.03,
        "interval": interval,
        "method": None if interval is None else OVER_DOCUMENTS if seeds == 1 else OVER_SEEDS,
        "samples": 40 if seeds == 1 else seeds,
        "verdict": verdict,
    }


def contrast(arm: str, best: str, last: str | None, seeds: int = 1) -> dict[str, Any]:
    metrics = {"best/loss": finding(best, "best", seeds)}
    if last is not None:
        metrics["last/loss"] = finding(last, "last", seeds)
    return {
        "arm": arm,
        "against": "plain",
        "against_arm": "plain",
        "is_contrast": False,
        "drop_rates": [0.2, 0.0],
        "metrics": metrics,
        **metrics["best/loss"],
    }


def compared(*contrasts: dict[str, Any], seeds: int = 1, **others: Any) -> dict[str, Any]:
    """Return a comparison with plain, of runs whose test loss rises since the best epoch."""
    names = ["plain", *(each["arm"] for each in contrasts)]
    means = {"best/loss": {"mean": 3.0}, "last/loss": {"mean": 3.1}}
    arms = {
        name: {
            "metrics": means,
            "trials": [{"score": 3.0 - 0.1 * place}],
            "runs": [{"folder": f"{name}/seed=0"}],
        }
        for place, name in enumerate(names)
    }
    given = {"arms": arms, "contrasts": list(contrasts), "seeds": list(range(seeds))}
    return {**given, "split": "test", "selected_by": "val/loss", "baseline": "plain", **others}


def concluded(comparison: dict[str, Any], run: RunRecord) -> Any:
    return conclude_comparison(comparison, [run] * len(comparison["arms"]), "runs/both")


@pytest.mark.parametrize(
    ("best", "last", "expected"),
    [
        (BETTER, BETTER, "a is better than plain"),
        (WORSE, WORSE, "a is worse than plain"),
        (SAME, SAME, "No difference from plain shown"),
        (SAME, None, "No difference from plain shown"),
        (UNTESTED, UNTESTED, "The difference of a from plain is not tested"),
        (SAME, BETTER, "No difference shown at the best epoch; a overfits less than plain"),
        (SAME, WORSE, "No difference shown at the best epoch; a overfits more than plain"),
        (
            BETTER,
            WORSE,
            "a is better than plain at the best epoch; a is worse at the last epoch than plain",
        ),
        (BETTER, SAME, "a is better than plain"),
    ],
)
def test_headline_of_two_arms(run: RunRecord, best: str, last: str | None, expected: str) -> None:
    assert concluded(compared(contrast("a", best, last)), run).headline == expected


def test_overfitting_less_needs_intervals_that_are_apart(run: RunRecord) -> None:
    found = contrast("a", SAME, BETTER)
    found["metrics"]["last/loss"]["interval"] = [-0.05, -0.005]
    expected = "No difference shown at the best epoch; a is better at the last epoch than plain"
    assert concluded(compared(found), run).headline == expected


def test_no_arm_overfits_less_than_one_that_does_not(run: RunRecord) -> None:
    comparison = compared(contrast("a", SAME, BETTER))
    comparison["arms"]["plain"]["metrics"] = {n: {"mean": 3.0} for n in ("best/loss", "last/loss")}
    assert concluded(comparison, run).headline.endswith("a is better at the last epoch than plain")


def test_headline_says_which_of_two_better_arms_is_better(run: RunRecord) -> None:
    arms = [contrast(name, BETTER, BETTER) for name in ("a", "b")]
    between = {**contrast("a", WORSE, WORSE), "against": "b", "is_contrast": True}
    expected = "a and b are better than plain; a is worse than b"
    assert concluded(compared(*arms, between), run).headline == expected


def test_headline_of_many_arms_counts_them(run: RunRecord) -> None:
    arms = [contrast("win", BETTER, BETTER), *(contrast(n, WORSE, WORSE) for n in "abc")]
    same = [contrast(n, SAME, SAME) for n in "de"]
    assert concluded(compared(*arms, *same), run).headline == (
        "win is better than plain; 3 of 6 arms are worse than plain; "
        "no difference shown for d and e"
    )


def test_summary_names_numbers_and_their_limits(run: RunRecord) -> None:
    summary = concluded(compared(contrast("a", SAME, BETTER)), run).summary
    assert "plain and a were fine-tuned on hpo with one seed (0)" in summary
    assert "on 40 documents of the test split" in summary
    assert (
        "is 0.000 (−0.010 to +0.010) for a; below zero is better. At the last epoch, it is −0.065 "
        in summary
    )
    assert "not other seeds" in summary
    assert "does not mean equal" in summary


def test_summary_of_many_arms_has_the_best_of_them(run: RunRecord) -> None:
    arms = [contrast(name, SAME, SAME) for name in "abcd"]
    summary = concluded(compared(*arms, contrast("win", BETTER, BETTER)), run).summary
    assert " for win" in summary
    assert " for d" not in summary
    assert "The table below has all 5 comparisons." in summary


def test_summary_of_several_seeds_is_about_seeds(run: RunRecord) -> None:
    summary = concluded(compared(contrast("a", BETTER, BETTER, 3), seeds=3), run).summary
    assert "with 3 seeds" in summary
    assert "The intervals cover other seeds." in summary
    assert "documents of the" not in summary
    assert "does not mean equal" not in summary


def test_next_steps(run: RunRecord) -> None:
    seeds, export = concluded(compared(contrast("a", SAME, SAME)), run).next_steps
    assert "`seeds: [0, 1, 2]`" in seeds.text
    assert seeds.command == "lit-entrodrop compare --config MY_COMPARISON.yaml --output runs/both"
    assert "take that of a," in export.text
    assert " runs/both/a/seed=0/checkpoints/best.ckpt" in export.command


def test_next_steps_without_a_test_split(run: RunRecord) -> None:
    comparison = compared(contrast("a", SAME, SAME, 5), seeds=5, split="validation")
    split, _ = concluded(comparison, run).next_steps
    assert "data.test" in split.text


def test_next_steps_of_runs_made_before(run: RunRecord) -> None:
    comparison = compared(contrast("a", SAME, SAME))
    for name, arm in comparison["arms"].items():
        arm["runs"] = [{"folder": f"../{name}"}]
    seeds, export = concluded(comparison, run).next_steps
    assert seeds.command.startswith("lit-entrodrop fit --config run/config.yaml --seed_everything")
    assert " runs/a/checkpoints/best.ckpt" in export.command


def test_one_arm_is_no_comparison(run: RunRecord) -> None:
    assert concluded(compared(), run).headline == "Nothing is compared: there is only one arm"
