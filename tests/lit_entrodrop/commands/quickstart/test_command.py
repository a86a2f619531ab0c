import json
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console
from transformers import AutoModelForCausalLM

from lit_entrodrop.cli.config_files import config_path
from lit_entrodrop.commands.compare.planning.settings import read_settings
from lit_entrodrop.commands.compare.running.process_pool import Workers
from lit_entrodrop.commands.quickstart.command import (
    COMPARISON,
    best_arm,
    compare_and_export,
    quickstart,
)
from lit_entrodrop.runs.writing import free_folder
from tests.helpers.comparing import start_forked

LESS = {
    "trainer": {"max_epochs": 1, "accelerator": "cpu"},
    "data": {
        "max_train_tokens": 6_000,
        "block_size": 128,
        "validation": 0.003,
        "test": 0.003,
        "clean_train_blocks": 4,
        "forgetting_tokens": 2_000,
    },
    "model": {"memorization": None},
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("quickstart") / "run"
    settings = read_settings(config_path(COMPARISON))
    settings = replace(settings, base=(*settings.base, LESS), ladder=None)
    compare_and_export(settings, folder, Workers(1, start=start_forked), Console())
    return folder


def test_three_arms_are_compared_and_the_best_is_exported(folder: Path) -> None:
    comparison = json.loads((folder / "comparison.json").read_text())
    arms = comparison["arms"]
    assert list(arms) == ["plain", "entrodrop", "random"]
    before = 5.77  # of the bundled model on medical text
    assert all(arm["metrics"]["last/loss"]["mean"] < before - 0.5 for arm in arms.values())
    assert "drop_rate" not in arms["plain"]["metrics"]
    assert arms["random"]["metrics"]["drop_rate"]["mean"] > 0
    model = AutoModelForCausalLM.from_pretrained(folder / "best_model")
    assert model.num_parameters() == 2_114_880
    losses = {name: arm["trials"][0]["score"] for name, arm in arms.items()}
    assert best_arm(comparison) == min(losses, key=lambda name: losses[name])


def test_it_ends_with_a_report(folder: Path) -> None:
    page = (folder / "report.html").read_text()
    assert all(name in page for name in ("plain", "entrodrop", "random"))
    assert list((folder / "figures").glob("*.png"))


def test_a_second_quickstart_gets_its_own_folder(tmp_path: Path) -> None:
    (tmp_path / "runs").mkdir()
    assert free_folder(tmp_path / "runs") == tmp_path / "runs-2"


def test_seed_beyond_those_of_numpy_is_refused() -> None:
    with pytest.raises(ValueError, match=r"seeds: expected .* got 99999999999"):
        quickstart(seed=99_999_999_999)
