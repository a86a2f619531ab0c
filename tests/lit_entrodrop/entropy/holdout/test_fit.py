"""Training under holdout-loss selection, through the command line."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from lit_entrodrop.entropy.holdout import gains
from lit_entrodrop.runs.metrics_file import read_metrics
from tests.helpers.tiny import CONFIGS, Tiny

SELECTION = f"--config={CONFIGS / 'regularizers/holdout_loss_selection.yaml'}"
HOLDOUT = "--data.holdout=0.2"


def fit(tiny: Tiny, *settings: object, root: str) -> Path:
    keep = ["--checkpoints.every_n_train_steps=3", "--checkpoints.keep_last=9"]
    return tiny.run("fit", *settings, *keep, root=root)


@pytest.fixture(scope="module")
def selected(tiny_module: Tiny) -> Path:
    return fit(tiny_module, SELECTION, HOLDOUT, root="selected")


@pytest.fixture(scope="module")
def plain(tiny_module: Tiny) -> Path:
    return fit(tiny_module, HOLDOUT, root="plain")


def last(run: Path) -> dict[str, Any]:
    state: dict[str, Any] = torch.load(run / "checkpoints" / "last.ckpt", weights_only=True)
    return state


def refused(tiny: Tiny, *settings: object, root: str = "refused") -> str:
    with pytest.raises(SystemExit) as ended:
        fit(tiny, SELECTION, *settings, root=root)
    return str(ended.value.code)


def test_gains_weigh_the_training(tiny_module: Tiny, selected: Path, plain: Path) -> None:
    weights = read_metrics(selected)["holdout_loss_selection/weight"].dropna()
    assert ((weights > 0) & (weights < 1)).all()
    ours, theirs = (read_metrics(run)["train/loss"].dropna() for run in (selected, plain))
    assert not np.isclose(ours, theirs).any()
    data = tiny_module.data(holdout=0.2)
    data.setup()
    assert len(last(selected)["holdout_gains"]["gains"]) == data.blocks("train").num_chunks
    assert last(plain)["holdout_gains"] == {}


def test_resumed_run_keeps_the_gains_of_the_initial_model(
    tiny_module: Tiny, selected: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # What the trained model would give must not be taken for them.
    monkeypatch.setattr(gains, "measure_gains", None)
    early = f"--ckpt_path={selected / 'checkpoints' / 'step=3.ckpt'}"
    resumed = last(fit(tiny_module, SELECTION, HOLDOUT, early, root="resumed"))
    assert resumed["global_step"] == last(selected)["global_step"] > 3
    for name, value in last(selected)["state_dict"].items():
        assert torch.equal(resumed["state_dict"][name], value), name


def test_run_without_holdout_text_is_refused(tiny_module: Tiny) -> None:
    alone = "--model.regularizers+=regularizers.HoldoutLossSelection"
    with pytest.raises(SystemExit) as ended:
        fit(tiny_module, alone, root="refused")
    said = str(ended.value.code)
    assert "data.holdout: expected holdout text" in said
    assert "set data.holdout to a share of the corpus such as 0.1" in said


def test_gains_of_other_settings_are_refused_on_resume(
    tiny_module: Tiny, selected: Path, plain: Path
) -> None:
    changed = {selected: ["--model.regularizers.neighbors=2"], plain: []}
    for run, settings in changed.items():
        checkpoint = f"--ckpt_path={run / 'checkpoints' / 'step=3.ckpt'}"
        said = refused(tiny_module, HOLDOUT, checkpoint, *settings, root=f"not_{run.name}")
        assert "ckpt_path: expected a checkpoint with the gains of this data.holdout" in said
        assert "restore these settings, or start a new run" in said
