from pathlib import Path
from typing import Any

import pytest
from scipy import stats

from lit_entrodrop.commands.report.comparison_sections.sweeps import sweep_figure, sweeps_of

GUIDANCE = [-1.0, 0.0, 1.0]
SETTING = "model.optimizer.init_args.weight_decay"


def entry(arm: str, strength: dict[str, Any], seed: int, loss: float) -> dict[str, Any]:
    return {"arm": arm, "strength": strength, "seed": seed, "validation": {"best/loss": loss}}


def loss_of(value: float, seed: int) -> float:
    return 3.5 + 0.1 * value**2 + 0.3 * seed + 0.01 * value * seed


def comparison(**changes: Any) -> dict[str, Any]:
    """Two arms with sweeps over two seeds, and runs that are no part of them."""
    runs = [entry("plain", {}, seed, 4.0 + 0.3 * seed) for seed in (0, 1, 2)]
    for arm, setting in {"guided": "guidance", "decayed": SETTING}.items():
        runs += [
            entry(arm, {setting: value}, seed, loss_of(value, seed))
            for value in (GUIDANCE if arm == "guided" else [0.1, 0.5, 1.5])
            for seed in (0, 1)
        ]
        runs.append(entry(arm, {setting: 0.0}, 2, 9.0))
        runs.append({**entry(arm, {setting: 0.0}, 0, 9.0), "share": 0.5})
        runs += [entry(arm, {setting: None}, seed, 9.0) for seed in (0, 1)]
    arms = {
        "plain": {"strength": {}},
        "guided": {"strength": {"guidance": 0.0}},
        "decayed": {"strength": {SETTING: 0.1}},
    }
    seeds = {"seeds": [0, 1, 2], "strength_seeds": [0, 1]}
    return {"baseline": "plain", "arms": arms, "runs": runs, **seeds, **changes}


def test_points_are_differences_over_the_seeds_of_the_selection() -> None:
    guided, decayed = sweeps_of(comparison()).values()
    assert list(guided.points) == GUIDANCE
    assert (guided.setting, guided.chosen) == ("guidance", 0.0)
    assert decayed.setting == "optimizer.weight_decay"
    differences = [loss_of(1.0, seed) - 4.0 - 0.3 * seed for seed in (0, 1)]
    mean, error = sum(differences) / 2, stats.sem(differences)
    found = guided.points[1.0]
    assert found.difference == pytest.approx(mean)
    assert (found.low, found.high) == pytest.approx(stats.t.interval(0.95, 1, mean, error))


def test_one_seed_has_no_interval_and_few_values_have_no_curve() -> None:
    [guided, _] = sweeps_of(comparison(strength_seeds=[0])).values()
    assert guided.points[1.0].difference == pytest.approx(-0.4)
    assert guided.points[1.0].high is None
    few = [run for run in comparison()["runs"] if run["strength"].get("guidance") != 1.0]
    assert list(sweeps_of(comparison(runs=few))) == ["decayed"]
    assert not sweeps_of(comparison(runs=[]))


def test_only_one_number_is_a_sweep() -> None:
    runs = [run for run in comparison()["runs"] if run["arm"] == "plain"]
    choices = [entry("guided", {"scope": name}, s, 3.0) for name in "abc" for s in (0, 1)]
    pairs = [entry("decayed", {"a": a, "b": 1}, s, 3.0) for a in (1, 2, 3) for s in (0, 1)]
    assert sweep_figure(comparison(runs=[*runs, *choices, *pairs]), None, "none") is None


def test_figure_shows_each_sweep(tmp_path: Path) -> None:
    figure = sweep_figure(comparison(), tmp_path, "strengths")
    assert figure is not None
    assert "guided at guidance 1: -0.395; decayed at optimizer.weight_decay 0.1: " in figure.wide
    assert "loss minus plain" in figure.wide
    assert (tmp_path / "strengths.png").stat().st_size > 0
