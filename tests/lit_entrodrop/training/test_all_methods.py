"""Every method trains on the quickstart's model and corpus, as it comes from its config."""

from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from torch import Tensor

from lit_entrodrop.cli.main import main
from lit_entrodrop.commands.plan.estimates.extra_passes import extra_passes_of
from lit_entrodrop.runs.metrics_file import read_metrics
from regularizers.discovery import own_regularizers
from tests.helpers.tiny import CONFIGS

# Composed like a user's: the quickstart, cut to some steps, and one file more.
LESS: dict[str, Any] = {
    "trainer": {"max_epochs": 1, "log_every_n_steps": 1, "enable_progress_bar": False},
    "model": {"memorization": None},
    "data": {
        "max_train_tokens": 800,
        "block_size": 32,
        "batch_size": 4,
        "validation": 0.001,
        "clean_train_blocks": 1,
    },
}
FILES = [
    *sorted((CONFIGS / "regularizers").glob("*.yaml")),
    *sorted((CONFIGS / "optimizer").glob("*.yaml")),
    CONFIGS / "model/dropout.yaml",
]


def model_settings(file: Path) -> dict[str, Any]:
    settings: dict[str, Any] = yaml.safe_load(file.read_text())["model"]
    return settings


def regularizers_of(file: Path) -> list[dict[str, Any]]:
    blocks: list[dict[str, Any]] = model_settings(file).get("regularizers+", [])
    return blocks


def acts_at_once(file: Path) -> bool:
    """Tell whether a method needs nothing of an epoch before, of which there is none."""
    blocks = regularizers_of(file)
    floods = any(block["class_path"] == "regularizers.Flooding" for block in blocks)
    return not floods and extra_passes_of(blocks).required.entropy != "last_epoch"


@cache
def trained(folder: Path, file: Path | None) -> tuple[dict[str, Tensor], Any]:
    """Train one epoch, and return the weights and what was logged."""
    less = folder / "less.yaml"
    less.write_text(yaml.safe_dump(LESS))
    files = [CONFIGS / "base.yaml", CONFIGS / "experiments/quickstart/common.yaml", file, less]
    run = folder / (file.stem if file else "plain")
    arguments = [
        "fit",
        *(f"--config={each}" for each in files if each),
        f"--data.cache_dir={folder / 'cache'}",
        f"--trainer.default_root_dir={run}",
        "--trainer.devices=1",
    ]
    # Of bitsandbytes on the CPU, a step takes less than its compilation.
    with torch.compiler.set_stance("force_eager"):
        main(arguments)
    checkpoint = torch.load(run / "checkpoints" / "last.ckpt", weights_only=True)
    return checkpoint["state_dict"], read_metrics(run)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("methods")


def test_every_regularizer_has_a_config() -> None:
    named = {block["class_path"] for file in FILES for block in regularizers_of(file)}
    assert named == {f"regularizers.{name}" for name in own_regularizers()}


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_method_trains(file: Path, folder: Path) -> None:
    plain_weights, plain = trained(folder, None)
    weights, logged = trained(folder, file)
    losses = logged["train/loss"].dropna()
    assert len(losses) == len(plain["train/loss"].dropna()) >= 5
    assert np.isfinite(losses).all()
    assert np.isfinite(logged["val/loss"].dropna()).all()
    # DFT minimizes 1 − p: a model that knows nothing yet raises its cross-entropy by that.
    assert file.stem == "dft" or logged["val/loss"].iloc[-1] < logged["val/loss"].iloc[0]
    differs = any(not torch.equal(weights[name], plain_weights[name]) for name in plain_weights)
    assert differs == acts_at_once(file)
    assert list(weights) == list(plain_weights)
    own = {name for name in logged.columns if name not in plain.columns}
    assert all(logged[name].notna().any() for name in own)
    settings = model_settings(file)
    assert bool(own) == ("regularizers+" in settings or "weight_decay_schedule" in settings)
