"""The mean of several checkpoints, uniform or chosen by validation."""

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from lit_entrodrop.cli.main import main
from lit_entrodrop.commands.export.soup import (
    check_same,
    check_same_validation,
    mean_of,
    read_mean,
    validation_loss,
)
from lit_entrodrop.runs.checkpoints.reading import read_checkpoint
from lit_entrodrop.runs.metrics_file import read_metrics
from tests.helpers.tiny import Tiny


@pytest.fixture(scope="module")
def run(tiny_module: Tiny) -> Path:
    return tiny_module.run("fit", "--checkpoints.keep_last=3", "--trainer.max_epochs=3")


@pytest.fixture
def paths(run: Path) -> list[Path]:
    return sorted((run / "checkpoints").glob("step=*.ckpt"))


def test_mean_is_that_of_all_weights(paths: list[Path], run: Path, tmp_path: Path) -> None:
    assert len(paths) == 3
    output = tmp_path / "mean"
    main(["export", "--average", *map(str, paths), "--output", str(output)])
    states = [read_checkpoint(path)["state_dict"] for path in paths]
    for name, weight in load_file(output / "model.safetensors").items():
        each = [state[f"causal_lm.hf_model.{name}"].double() for state in states]
        torch.testing.assert_close(weight.double(), torch.stack(each).mean(0), atol=1e-7, rtol=1e-6)
    card = (output / "README.md").read_text()
    assert f"mean of 3 checkpoints: {', '.join(path.name for path in paths)}" in card
    assert "this checkpoint" not in card


def test_greedy_mean_is_no_worse_than_the_best_checkpoint(paths: list[Path], run: Path) -> None:
    losses = read_metrics(run)["val/loss"].dropna()
    singles = {path: read_checkpoint(path) for path in paths}
    alone = {path: validation_loss(checkpoint) for path, checkpoint in singles.items()}
    for path, loss in alone.items():
        assert loss == pytest.approx(losses[singles[path]["global_step"]], rel=1e-5)
    mean, chosen = read_mean(paths, greedy=True)
    assert chosen[0] == min(alone, key=lambda path: alone[path])
    assert validation_loss(mean) <= min(alone.values())
    uniform = mean_of(list(singles.values()))
    assert len(chosen) == 3 or validation_loss(uniform) > validation_loss(mean)


def test_checkpoints_of_different_models_are_refused(paths: list[Path]) -> None:
    first, second = (read_checkpoint(path) for path in paths[:2])
    changes: list[tuple[str, dict[str, Any]]] = [
        ("dtype", {"lm": {**second["lm"], "dtype": "bfloat16"}}),
        ("tokenizer", {"lm": {**second["lm"], "tokenizer": "another"}}),
        ("config", {"hf_config": {**second["hf_config"], "rope_theta": 1.0}}),
        ("shapes", {"state_dict": {"causal_lm.weight": torch.ones(1)}}),
    ]
    for named, change in changes:
        with pytest.raises(ValueError, match=f"average: expected .* differs from a in .*{named}"):
            check_same({Path("a"): first, Path("b"): {**second, **change}})
    adapted = {**first, "lm": {**first["lm"], "lora": {"rank": 2}}}
    with pytest.raises(ValueError, match="average: expected checkpoints of whole models"):
        check_same({Path("a"): adapted, Path("b"): second})


def test_lists_and_text_that_cannot_be_compared_are_refused(paths: list[Path]) -> None:
    first = read_checkpoint(paths[0])
    for given, greedy in (([paths[0]] * 2, False), ([paths[0]], True)):
        with pytest.raises(ValueError, match="average: expected paths to two different"):
            read_mean(given, greedy=greedy)
    key = "datamodule_hyper_parameters"
    silent = {**first, key: {**first[key], "validation": None}}
    with pytest.raises(ValueError, match="greedy: expected runs with validation text, got a"):
        check_same_validation({Path("a"): silent, Path("b"): first})
    for other in (
        {**first, "trained_on": "other"},
        {**first, key: {**first[key], "validation": 0.5}},
    ):
        with pytest.raises(ValueError, match=r"greedy: .* can be compared, got b"):
            check_same_validation({Path("a"): first, Path("b"): other})
