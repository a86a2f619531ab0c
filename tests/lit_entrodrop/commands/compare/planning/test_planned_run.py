"""From settings to runs, each with the config that `fit` would use."""

import inspect
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from lit_entrodrop.commands.compare.planning.config_differences import (
    digest,
    flatten,
)
from lit_entrodrop.commands.compare.planning.planned_run import PlannedRun, plan_runs
from lit_entrodrop.commands.compare.planning.settings import parse_settings, read_settings
from regularizers.discovery import own_regularizers
from tests.helpers.tiny import CONFIGS

BASE = ["configs/base.yaml", "configs/experiments/quickstart/common.yaml"]
GRID = {"curriculum.init_args.max": [0.3, 0.6]}
ENTRODROP = {"configs": ["configs/regularizers/entrodrop.yaml"], "strengths": GRID}
DECAY = {"strengths": {"model.optimizer.init_args.weight_decay": [0.1, 0.5]}}


def plan(arms: dict[str, Any], **changes: Any) -> list[PlannedRun]:
    content = {"base": BASE, "arms": {"plain": [], **arms}, **changes}
    return plan_runs(parse_settings(content), Path("out"))


@pytest.fixture(scope="module")
def runs() -> list[PlannedRun]:
    return plan({"entrodrop": ENTRODROP, "decay": DECAY}, seeds=[0, 3])


def test_there_is_a_run_for_each_arm_strength_and_seed(runs: list[PlannedRun]) -> None:
    of_a_seed = ["plain", "entrodrop/max=0.3", "entrodrop/max=0.6"]
    of_a_seed += ["decay/weight_decay=0.1", "decay/weight_decay=0.5"]
    expected = [f"out/{folder}/seed={seed}" for seed in (0, 3) for folder in of_a_seed]
    assert [str(run.folder) for run in runs] == expected
    assert runs[6].title == "entrodrop max=0.3 seed 3"
    assert len({digest(run.config) for run in runs}) == len(runs)


def test_configs_differ_in_the_arm_alone(runs: list[PlannedRun]) -> None:
    plain, *others = [run for run in runs if run.seed == 3]
    for run in others:
        ours, theirs = flatten(run.config), flatten(plain.config)
        differing = {name for name in ours.keys() | theirs if ours.get(name) != theirs.get(name)}
        assert differing
        assert all(name.startswith(("model.regularizers", "model.optimizer")) for name in differing)
    assert {run.config["seed_everything"] for run in runs} == {0, 3}


def test_strengths_are_set(runs: list[PlannedRun]) -> None:
    [regularizer] = runs[2].config["model"]["regularizers"]
    assert regularizer["init_args"]["curriculum"]["init_args"]["max"] == 0.6
    assert runs[4].config["model"]["optimizer"]["init_args"]["weight_decay"] == 0.5
    # What else the optimizer was given stays.
    assert runs[4].config["model"]["optimizer"]["init_args"]["lr"] == 0.001


@pytest.mark.parametrize(
    ("arm", "message"),
    [
        ([{"data": {"batch_size": 2}}], "arms.a: expected all settings except model.regularizers,"),
        (
            [{"trainer": {"max_epochs": 3}}],
            "in plain, but trainer.max_epochs is 3, not 10: set it in",
        ),
        ([{"model": {"lm": {"pretrained": "other"}}}], "model.lm.pretrained is other"),
        # Identical models would be told by other tokens.
        ([{"model": {"entropy_buckets": {"quantiles": [0.5]}}}], "model.entropy_buckets.quantiles"),
        ([{"model": {"memorization": None}}], "but model.memorization"),
        ([{"monitors": {"evaluations": None}}], "but monitors.evaluations"),
        (
            [{"model": {"color": 1}}],
            "arms.a: Subcommand 'fit' does not accept option 'model.color' (see lit-entrodrop fit",
        ),
        (
            [{"model": {"regularizers": ["Entrodrop"]}}],
            "got Entrodrop: did you mean EntroDrop? (see lit-entrodrop fit --help)",
        ),
        ({"strengths": {"quantile": [0.5]}}, "the arm's last regularizer, but it has none"),
        (
            {**ENTRODROP, "strengths": {"color": [1]}},
            "expected an existing setting (quantile, curriculum",
        ),
        ({**ENTRODROP, "strengths": {"quantile.x": [1]}}, "(there are none), got quantile.x"),
        (
            {**ENTRODROP, "strengths": {"quantile": ["x"]}},
            "arms.a.strengths: model.regularizers.quantile: expected a n",
        ),
    ],
)
def test_bad_arms_are_refused(arm: Any, message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        plan({"a": arm})


def test_dropout_within_the_model_and_adapters_are_rivals() -> None:
    dropout = {"model": {"lm": {"config_overrides": {"attention_dropout": 0.1}}}}
    runs = plan({"dropout": [dropout], "lora": ["configs/model/lora.yaml"]})
    assert [run.arm for run in runs] == ["plain", "dropout", "lora"]


def test_ready_comparison_compares_controls_at_matched_strengths() -> None:
    settings = read_settings(CONFIGS / "comparisons" / "entrodrop.yaml")
    assert [len(arm.trials) for arm in settings.arms] == [1, 3, 3, 3, 3, 3]
    strengths = {arm.name: arm.strengths for arm in settings.arms}
    for first, second in settings.contrasts:
        assert strengths[first] == strengths[second]
    assert len(settings.seeds) == 3
    assert settings.run_count == 48
    assert replace(settings, strength_seeds=(0,)).run_count == 28
    # The first strength of each arm, as it takes some time to compose all.
    arms = [
        replace(arm, strengths={name: values[:1] for name, values in arm.strengths.items()})
        for arm in settings.arms
    ]
    runs = plan_runs(replace(settings, arms=tuple(arms)), Path("out"))
    assert len(runs) == 18
    assert all(run.config["data"]["test"] > 0 for run in runs)


def test_baselines_are_all_methods_without_a_second_corpus() -> None:
    settings = read_settings(CONFIGS / "comparisons" / "baselines.yaml")
    assert {len(arm.trials) for arm in settings.arms[1:]} == {2}
    assert settings.run_count == 87
    compared = set()
    for arm in settings.arms:
        for file in arm.configs:
            for item in yaml.safe_load(Path(file).read_text())["model"].get("regularizers+", []):
                name = item["class_path"].removeprefix("regularizers.")
                parameters = inspect.signature(own_regularizers()[name]).parameters
                assert all(setting.partition(".")[0] in parameters for setting in arm.strengths)
                compared.add(name)
    # It alone would train on less, as its holdout text is taken from the corpus.
    assert "HoldoutLossSelection" not in compared
    assert len(compared) >= 19


def test_baselines_of_model_and_optimizer_are_composed() -> None:
    settings = read_settings(CONFIGS / "comparisons" / "baselines.yaml")
    arms = [
        replace(arm, strengths={name: values[1:] for name, values in arm.strengths.items()})
        for arm in settings.arms
        if arm.name in ("plain", "weight_decay", "dropout", "r_drop", "loss_reweighting")
    ]
    runs = plan_runs(replace(settings, seeds=(0,), arms=tuple(arms)), Path("out"))
    models = {run.arm: run.config["model"] for run in runs}
    plain = models["plain"]["optimizer"]["init_args"]
    decayed = models["weight_decay"]["optimizer"]["init_args"]
    assert decayed == {**plain, "weight_decay": 0.5}
    assert models["dropout"]["lm"]["dropout"]["hidden"] == 0.2
    assert models["r_drop"]["lm"]["dropout"]["hidden"] == 0.1
    assert models["plain"]["lm"]["dropout"] is None


def test_library_is_compared_at_the_settings_of_its_configs() -> None:
    settings = read_settings(CONFIGS / "comparisons" / "library.yaml")
    files = {Path(file) for arm in settings.arms for file in arm.configs}
    assert len(files) == len(settings.arms) - 1
    few = ("plain", "mir", "learn_focus_review", "weight_decay_strong")
    arms = tuple(arm for arm in settings.arms if arm.name in few)
    runs = plan_runs(replace(settings, arms=arms, contrasts=()), Path("out"))
    orders = {run.arm: run.config["data"]["order"]["class_path"] for run in runs}
    assert orders["learn_focus_review"].endswith("LearnFocusReview")
    assert orders["plain"].endswith("Shuffled")


def test_quickstart_comparison_is_the_quickstart() -> None:
    settings = read_settings(CONFIGS / "comparisons" / "quickstart.yaml")
    assert settings.run_count == 6  # with those on half of the text
    runs = plan_runs(settings, Path("out"))
    assert [run.arm for run in runs] == ["plain", "entrodrop", "random"]
    entrodrop, random = (run.config["model"]["regularizers"][0]["init_args"] for run in runs[1:])
    shared = ("quantile", "curriculum", "replacement", "target")
    assert [entrodrop[name] for name in shared] == [random[name] for name in shared]
    assert (entrodrop["guidance"], random["guidance"]) == (-1, 0)
