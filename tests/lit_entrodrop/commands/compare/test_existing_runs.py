import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from rich.console import Console

from lit_entrodrop.commands.compare.comparing import compare_existing
from lit_entrodrop.commands.compare.existing_runs import (
    group_into_trials,
    plain_or_first,
    read_existing_run,
)
from tests.lit_entrodrop.commands.compare.measuring.test_measures import write_run


def run(folder: Path, seed: int = 0, regularizers: Any = (), **data: Any) -> Path:
    """Write what `compare` reads of a run."""
    write_run(folder)
    model = {"regularizers": list(regularizers), "lm": {"pretrained": "x"}}
    config = {"seed_everything": seed, "model": model, "trainer": {"max_epochs": 3}}
    (folder / "config.yaml").write_text(yaml.safe_dump({**config, "data": {"corpus": "c", **data}}))
    return folder


OURS = [{"class_path": "regularizers.EntroDrop"}]


def sort(*words: object) -> tuple[list[tuple[str, list[int]]], str, list[str]]:
    runs = [read_existing_run(str(word)) for word in words]
    trials, _, notes = group_into_trials(runs)
    arms = [(trial.arm, list(trial.results)) for trial in trials]
    return arms, plain_or_first(trials, runs), notes


def test_runs_that_differ_in_their_seed_are_one_arm(tmp_path: Path) -> None:
    folders = [run(tmp_path / f"ours-seed{seed}", seed, OURS) for seed in (1, 0)]
    folders += [run(tmp_path / "plain" / f"seed={seed}", seed) for seed in (0, 1)]
    arms, baseline, notes = sort(*folders)
    assert arms == [("ours", [0, 1]), ("plain", [0, 1])]
    assert baseline == "plain"
    assert notes == []


def test_arms_of_one_name_get_distinct_names(tmp_path: Path) -> None:
    arms, _, _ = sort(run(tmp_path / "a" / "run"), run(tmp_path / "b" / "run", 0, OURS))
    assert [name for name, _ in arms] == ["run", "run-2"]


def test_names_may_be_given(tmp_path: Path) -> None:
    arms, baseline, _ = sort(f"x={run(tmp_path / 'a', 0, OURS)}", f"y={run(tmp_path / 'b', 0, [])}")
    assert [name for name, _ in arms] == ["x", "y"]
    assert baseline == "y"


def test_other_data_is_told(tmp_path: Path) -> None:
    one, other = run(tmp_path / "a"), run(tmp_path / "b", 0, OURS, corpus="d")
    _, _, notes = sort(one, other)
    assert notes == [
        "Not matched: b differs from a in a setting that arms must share: data.corpus is d, not c."
    ]


def test_notes_name_other_buckets_but_not_another_cache(tmp_path: Path) -> None:
    one, other = run(tmp_path / "a"), run(tmp_path / "b", 0, OURS)
    for folder, changes in ((one, {"cache_dir": "x"}), (other, {"entropy_buckets": {"a": 1}})):
        config = yaml.safe_load((folder / "config.yaml").read_text())
        config["model"] |= changes
        (folder / "config.yaml").write_text(yaml.safe_dump(config))
    _, _, [note] = sort(one, other)
    assert note.endswith("that arms must share: model.entropy_buckets.a is 1, not absent.")


def test_seeds_that_differ_are_told(tmp_path: Path) -> None:
    folders = [run(tmp_path / f"plain-seed{seed}", seed) for seed in (0, 1)]
    _, _, [note] = sort(*folders, run(tmp_path / "ours", 1, OURS))
    assert note.startswith("Seeds differ (plain 0, 1; ours 1): a mean is over all seeds of its arm")


def test_what_cannot_be_compared_is_refused(tmp_path: Path) -> None:
    plain, again = run(tmp_path / "plain"), run(tmp_path / "again")
    ours = run(tmp_path / "ours", 1, OURS)
    with pytest.raises(ValueError, match=r"found no config\.yaml in .*none"):
        sort(plain, tmp_path / "none")
    with pytest.raises(ValueError, match="at least two arms, got plain"):
        sort(plain)
    with pytest.raises(ValueError, match="both seed 0 of plain"):
        sort(plain, again)
    console, folders = Console(), [str(plain), str(ours)]
    with pytest.raises(
        ValueError, match=r"common seed, got seeds \[1\] of ours and \[0\] of plain"
    ):
        compare_existing(folders, tmp_path / "out", None, [], console)
    assert not (tmp_path / "out").exists()
    # Both share a seed with the baseline, but none with each other.
    both = [str(run(tmp_path / f"base-seed{seed}", seed, OURS * 2)) for seed in (0, 1)]
    with pytest.raises(ValueError, match=r"got seeds \[0\] of plain and \[1\] of ours"):
        compare_existing([*both, *folders], tmp_path / "out", "base", [("plain", "ours")], console)


@pytest.mark.parametrize("content", ["", "[]", "a: [", "model: {}", "model: []\ndata: {}\n"])
def test_config_that_cannot_be_read_is_refused(tmp_path: Path, content: str) -> None:
    folder = run(tmp_path / "run")
    (folder / "config.yaml").write_text(content)
    with pytest.raises(ValueError, match=r"settings of `fit` .* in .*run/config\.yaml, got"):
        read_existing_run(str(folder))


def test_report_that_fails_leaves_the_comparison(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folders = [str(run(tmp_path / "plain")), str(run(tmp_path / "ours", 0, OURS))]
    output = tmp_path / "out"
    # A file stands where figures belong.
    output.mkdir()
    (output / "figures").touch()
    compared = compare_existing(folders, output, None, [], Console(width=200))
    assert json.loads((output / "comparison.json").read_text()) == compared
    assert "report: none could be written, WriteError" in capsys.readouterr().out
