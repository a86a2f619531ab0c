"""The code of docs/write_your_own.md runs."""

import re
import shlex
import sys
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch

from lit_entrodrop.cli.main import main
from lit_entrodrop.runs.metrics_file import read_metrics
from regularizers import Regularizers
from regularizers.testing import RegularizerContract, ToyLM, make_step, training_loss
from regularizers.testing.cases import cases_of
from regularizers.testing.steps import VOCABULARY
from tests.helpers.tiny import texts, write_corpus

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "write_your_own.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", PAGE, re.DOTALL | re.MULTILINE)


@pytest.fixture
def mine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    """A module with all Python code of the page, in the working directory."""
    (tmp_path / "my_regularizers.py").write_text("\n\n".join(blocks("python")))
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    # Other tests write modules of this name elsewhere.
    sys.modules.pop("my_regularizers", None)
    yield import_module("my_regularizers")
    del sys.modules["my_regularizers"]


def test_no_block_is_left_out() -> None:
    assert set(re.findall(r"^```(\w+)$", PAGE, re.MULTILINE)) == {"python", "yaml", "sh", "toml"}


def test_first_one_takes_about_twenty_lines() -> None:
    code = [line for line in blocks("python")[0].splitlines() if line.strip()]
    assert len(code) <= 20


@pytest.mark.parametrize("name", ["LossVariance", "Omission", "Harder", "CappedLoss"])
def test_each_keeps_the_contract(mine: ModuleType, name: str) -> None:
    kind = getattr(mine, name)
    checks = [check for check in dir(RegularizerContract) if check.startswith("test_")]
    assert len(checks) > 10
    for case in cases_of(kind):
        for check in checks:
            if "device" not in check:
                getattr(RegularizerContract(), check)(case)


def test_tests_of_the_page_pass(mine: ModuleType) -> None:
    assert mine.TestLossVariance.regularizer is mine.LossVariance
    mine.test_variance_adds_to_the_mean()


def test_variance_is_that_of_numpy(mine: ModuleType) -> None:
    step = make_step()
    regularized, plain = (
        training_loss(mine.LossVariance(strength), ToyLM(), step).item() for strength in (0.7, 0.0)
    )
    with torch.no_grad():
        logits = ToyLM().double()(step.input_ids).numpy()[:, :-1]
    chosen = np.take_along_axis(logits, step.input_ids.numpy()[:, 1:, None], -1)[..., 0]
    nll = np.log(np.exp(logits).sum(-1)) - chosen
    variance = nll[step.valid.numpy()[:, 1:]].var()
    assert regularized - plain == pytest.approx(0.7 * variance, rel=1e-4)


def test_hidden_tokens_count_half(mine: ModuleType) -> None:
    step = make_step()
    [omission] = Regularizers([mine.Omission(0.5)]).ordered
    hidden: Any = omission.hidden(step)
    weights = Regularizers([omission]).on_token_weight(step)
    assert set(weights[step.valid & hidden].tolist()) == {0.5}
    assert set(weights[step.valid & ~hidden].tolist()) == {1.0}


def test_company_is_refused_as_the_page_says(mine: ModuleType) -> None:
    with pytest.raises(ValueError, match="got a second: remove one"):
        Regularizers([mine.Harder(), mine.Harder()]).check(VOCABULARY)


def test_commands_of_the_page_run(
    mine: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    [config] = blocks("yaml")
    (tmp_path / "variance.yaml").write_text(config)
    write_corpus(tmp_path / "notes.jsonl", texts(60))
    commands = [shlex.split(line) for block in blocks("sh") for line in block.splitlines()]
    assert [words[1] for words in commands] == ["fit", *["regularizers"] * 3]
    quick = ["--trainer.accelerator=cpu", "--trainer.enable_progress_bar=false"]
    quick += ["--data.block_size=16", "--data.batch_size=4", "--trainer.log_every_n_steps=1"]
    for program, command, *words in commands:
        assert program == "lit-entrodrop"
        main([command, *words, *(quick if command == "fit" else [])])
    metrics = read_metrics(tmp_path / "runs" / "default")
    assert (metrics["loss_variance/variance"].dropna() > 0).all()
    assert (metrics["loss_variance/strength"].dropna() == 0.2).all()
    assert "Drop low-entropy input tokens" in capsys.readouterr().out


def test_entry_point_is_that_of_the_template() -> None:
    [announcement] = blocks("toml")
    project = ROOT / "examples" / "regularizer_package" / "pyproject.toml"
    assert announcement in project.read_text()


@pytest.mark.parametrize("link", re.findall(r"\]\(((?!http)[^)]+)\)", PAGE))
def test_links_lead_somewhere(link: str) -> None:
    assert (ROOT / "docs" / link).exists()
