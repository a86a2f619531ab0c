import re
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any, get_args

import pytest
import yaml

from lit_entrodrop.cli.config_files import find_config
from lit_entrodrop.commands.compare.planning.ladder import Ladder
from lit_entrodrop.commands.compare.planning.planned_run import plan_runs
from lit_entrodrop.commands.compare.planning.settings import (
    Arm,
    parse_settings,
    read_settings,
)
from regularizers.replacement import Replacement
from tests.helpers.tiny import CONFIGS

ARM = {"configs": ["configs/regularizers/entrodrop.yaml"]}
GOOD: dict[str, Any] = {"base": ["configs/base.yaml"], "arms": {"plain": [], "mine": ARM}}


def test_defaults() -> None:
    settings = parse_settings(GOOD)
    assert settings.baseline == "plain"
    assert settings.seeds == (0,)
    assert settings.contrasts == ()
    assert [len(arm.trials) for arm in settings.arms] == [1, 1]


def test_grid_is_every_combination() -> None:
    arm = Arm("a", strengths={"curriculum": [0.1, 0.2], "quantile": [0.3, 0.5, 0.7]})
    assert len(arm.trials) == 6
    assert arm.trials[0] == {"curriculum": 0.1, "quantile": 0.3}
    assert arm.trials[-1] == {"curriculum": 0.2, "quantile": 0.7}


def test_strengths_are_selected_on_all_seeds_or_some() -> None:
    settings = parse_settings({**GOOD, "seeds": [0, 1, 2]})
    assert settings.selection_seeds == (0, 1, 2)
    assert settings.run_count == 6
    assert parse_settings({**GOOD, "seeds": [0, 1], "strength_seeds": 1}).selection_seeds == (1,)
    assert read_settings(CONFIGS / "comparisons" / "final_model.yaml").run_count == 61


def test_ladder_adds_runs_of_the_baseline_and_of_each_arm() -> None:
    settings = read_settings(CONFIGS / "comparisons" / "ladder.yaml")
    assert settings.ladder == Ladder((0.25, 0.5, 1.0), at=0.5)
    assert settings.run_count == 15


def test_first_arm_is_the_baseline_where_none_is_plain() -> None:
    assert parse_settings({**GOOD, "arms": {"one": [], "other": ARM}}).baseline == "one"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"arms": {"plain": []}}, "arms: expected at least two, got ['plain']"),
        ({"arms": []}, "arms: expected a mapping, got []"),
        ({"arms": {"a/b": [], "c": []}}, "arms: expected a name that is valid for a folder"),
        ({"arms": {"..": [], "c": []}}, "arms: expected a name that is valid for a folder"),
        ({"arms": {"lock": [], "c": []}}, "files of the comparison, got lock: rename the arm"),
        ({"arms": {"Report.html": [], "c": []}}, "files of the comparison, got Report.html"),
        ({"arms": {"A": [], "a": []}}, "arms: expected names that differ by more than case"),
        ({"arms": {"1": [], 1: []}}, "arms: expected names that differ by more than case"),
        ({"arms": {"a": {"model": {}}, "b": []}}, "arms.a: expected a list of config files"),
        ({"arms": {"a": [3], "b": []}}, "arms.a: expected config files or mappings, got 3"),
        ({"arms": {"a": ["no.yaml"], "b": []}}, "config: expected a file, found no no.yaml"),
        ({"base": []}, "base: expected a list of config files or mappings"),
        ({"seeds": [0, 0]}, "seeds: expected different integers from 0"),
        ({"seeds": [-1]}, "seeds: expected different integers from 0"),
        ({"seeds": []}, "seeds: expected different integers from 0"),
        ({"seeds": ["0"]}, "seeds: expected different integers from 0"),
        ({"seeds": [2**32]}, "seeds: expected different integers from 0 to 2**32 - 1"),
        ({"strength_seeds": [1]}, "strength_seeds: expected some of the seeds [0], got [1]"),
        ({"strength_seeds": []}, "strength_seeds: expected different integers"),
        ({"ladder": [0.5]}, "ladder: expected two or more different shares of the training text"),
        ({"ladder": [0.5, 0.5, 1]}, "ladder: expected two or more different shares"),
        ({"ladder": [0.5, 2]}, "ladder: expected two or more different shares"),
        ({"ladder": "1"}, "ladder: expected two or more different shares"),
        ({"ladder": [0.5, True]}, "ladder: expected two or more different shares"),
        (
            {"arms": {"plain": [], "mine": {**ARM, "strengths": {"curriculum": [0.1, "0.1"]}}}},
            "arms.mine.strengths.curriculum: expected a list of different values",
        ),
        ({"ladder": [0.5, 1], "ladder_at": 0.7}, "ladder_at: expected one of [0.5, 1.0], got 0.7"),
        ({"ladder_at": 0.5}, "ladder_at: expected `ladder` with it, got none"),
        ({"baseline": "none"}, "baseline: expected one of plain, mine, got none"),
        ({"contrasts": [["plain", "no"]]}, "contrasts: expected one of plain, mine, got no"),
        ({"contrasts": ["plain"]}, "contrasts: expected pairs of different arms, got plain"),
        ({"contrasts": [["mine", "mine"]]}, "contrasts: expected pairs of different arms"),
        ({"color": 1}, "config: expected arms, base, baseline"),
        ({"arms": {"a": {**ARM, "strengths": {"x": 3}}, "b": []}}, "arms.a.strengths.x: expected"),
        (
            {
                "arms": {
                    "a": {**ARM, "strengths": {"x": [1, 2]}},
                    "b": {**ARM, "strengths": {"x": [1, 2, 3]}},
                }
            },
            "the same number of trials for all arms with a grid, as the best of more trials looks "
            "better by chance, got a 2, b 3",
        ),
    ],
)
def test_bad_settings_are_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        parse_settings({**GOOD, **changes})


def test_files_are_found_beside_the_config(tmp_path: Path) -> None:
    (tmp_path / "own.yaml").write_text("model: {}\n")
    config = tmp_path / "compare.yaml"
    config.write_text(yaml.safe_dump({**GOOD, "arms": {"a": [], "b": ["own.yaml"]}}))
    assert read_settings(config).arms[1].configs == (str(tmp_path / "own.yaml"),)


def test_file_that_is_no_yaml_is_refused(tmp_path: Path) -> None:
    (tmp_path / "bad.yaml").write_text("a: [")
    with pytest.raises(ValueError, match="config: expected YAML"):
        read_settings(tmp_path / "bad.yaml")


def test_file_of_bytes_is_refused(tmp_path: Path) -> None:
    config = tmp_path / "c.yaml"
    config.write_bytes(b"\xff\x80")
    with pytest.raises(ValueError, match=f"config: expected YAML in {config}, got something else"):
        read_settings(config)


def test_changes_take_precedence_over_the_file(tmp_path: Path) -> None:
    config = tmp_path / "c.yaml"
    config.write_text(yaml.safe_dump({**GOOD, "ladder": [0.5, 1], "ladder_at": 1}))
    assert read_settings(config, {"ladder": [0.2, 0.4, 1]}).ladder == Ladder((0.2, 0.4, 1.0), at=1)


def test_ready_configs_are_found_from_anywhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    expected = CONFIGS / "comparisons" / "quickstart.yaml"
    assert find_config("configs/comparisons/quickstart.yaml", Path()) == expected
    assert read_settings(Path("comparisons/quickstart.yaml")).baseline == "plain"
    for folder in ("", "comparisons", str(tmp_path)):
        with pytest.raises(ValueError, match="expected a file"):
            find_config(folder, Path())


def test_comparison_moves_to_another_corpus_with_some_arms() -> None:
    settings = read_settings(CONFIGS / "comparisons" / "readings.yaml")
    base = [
        "configs/base.yaml",
        "experiments/quickstart/common.yaml",
        "experiments/unseen/sotu.yaml",
    ]
    chosen = settings.with_base(base).with_arms(["low_zero", "chance_zero"])
    assert chosen.title == "the open readings of EntroDrop, on sotu"
    assert [arm.name for arm in chosen.arms] == ["plain", "low_zero", "chance_zero"]
    assert chosen.contrasts == (("low_zero", "chance_zero"),)
    few = replace(chosen.with_arms(["low_zero"]), seeds=(0,))
    plain, *_ = plan_runs(few, Path("out"))
    assert plain.config["data"]["corpus"] == "runs/sotu.txt"
    assert plain.config["data"]["test"] == 0.02
    with pytest.raises(ValueError, match=r"arms: expected one of plain, low_zero, .*, got low"):
        settings.with_arms(["low"])
    with pytest.raises(ValueError, match="arms: expected arms besides the baseline, got plain"):
        settings.with_arms(["plain"])
    with pytest.raises(ValueError, match=r"expected a file, found no missing\.yaml"):
        settings.with_base(["missing.yaml"])


def test_arms_of_the_readings_are_all_combinations() -> None:
    settings = read_settings(CONFIGS / "comparisons" / "readings.yaml")
    blocks = [arm.configs[0] for arm in settings.arms[1:]]
    chosen = []
    for block in blocks:
        assert isinstance(block, dict)
        [regularizer] = block["model"]["regularizers+"]
        chosen.append(
            (regularizer["init_args"]["guidance"], regularizer["init_args"]["replacement"])
        )
    replacements = set(get_args(Replacement)) - {"mask_token"}
    assert len(chosen) == 15
    assert set(chosen) == set(product((-1, 0, 1), replacements))
    assert settings.run_count == 61 + 32
