"""What may change when a run is resumed: settings that are given win, the state goes on."""

import shutil
from pathlib import Path

import pytest
import torch

from lit_entrodrop.runs.metrics_file import read_metrics
from tests.helpers.runs import fit, validation_loss
from tests.helpers.tiny import CONFIGS, Tiny, texts, write_corpus

WITHIN_AN_EPOCH = ["--checkpoints.every_n_train_steps=3", "--checkpoints.keep_last=9"]


@pytest.fixture(scope="module")
def trained(tiny_module: Tiny) -> Path:
    """A run of one epoch of ten steps, with checkpoints within it."""
    return tiny_module.run("fit", "--trainer.max_epochs=1", *WITHIN_AN_EPOCH)


@pytest.fixture
def run(tiny: Tiny, trained: Path) -> Path:
    """A copy of it to resume."""
    return shutil.copytree(trained, tiny.folder / "run", symlinks=True)


def resume(tiny: Tiny, *settings: str, step: int = 10) -> Path:
    path = tiny.folder / "run" / "checkpoints" / f"step={step}.ckpt"
    return tiny.run("fit", f"--ckpt_path={path}", "--trainer.max_epochs=2", *settings)


def refused(tiny: Tiny, *settings: str, step: int = 10) -> str:
    with pytest.raises(SystemExit) as ended:
        resume(tiny, *settings, step=step)
    return str(ended.value.code)


def test_more_epochs_other_regularizers_and_rates_are_taken(tiny: Tiny, run: Path) -> None:
    resume(
        tiny,
        "--model.optimizer.lr=0.001",
        "--model.lr_schedule.decay=constant",
        "--model.regularizers+=regularizers.RandomTokenDropout",
        "--trainer.accumulate_grad_batches=2",
        "--data.batch_size=2",
    )
    metrics = read_metrics(run)
    assert metrics.loc[11:, "learning_rate"].dropna().unique() == pytest.approx([0.001])
    assert metrics.loc[11:, "random_token_dropout/drop_rate"].notna().any()
    assert metrics.index[-1] == 20


def test_steps_of_another_size_share_out_what_is_left(tiny: Tiny, run: Path) -> None:
    """Of the learning rate, which falls to zero after the last step, and not before."""
    resume(tiny, "--data.batch_size=8", "--model.lr_schedule.decay=linear")
    rates = read_metrics(run)["learning_rate"].dropna()
    assert rates.index[-1] == 10 + 5
    assert (rates.loc[11:].diff().dropna() < 0).all()
    per_step = rates.loc[11:] / (10 + 5 + 1 - rates.loc[11:].index)
    assert per_step.to_numpy() == pytest.approx(per_step.iloc[0])


def test_within_an_epoch_batches_keep_their_size(tiny: Tiny, run: Path) -> None:
    said = refused(tiny, "--data.batch_size=2", step=6)
    assert "data.batch_size: expected 4 blocks per batch over all devices" in said
    assert "or resume from a checkpoint at the end of an epoch" in said
    resume(tiny, "--trainer.accumulate_grad_batches=2", step=6)
    assert read_metrics(run).index[-1] == 6 + 2 + 5


@pytest.mark.parametrize("setting", ["--data.block_size=8", "--data.max_train_tokens=200"])
def test_other_blocks_are_refused(tiny: Tiny, run: Path, setting: str) -> None:
    said = refused(tiny, setting)
    assert "data: expected the training blocks of the checkpoint, got others" in said
    assert "start a new run from the exported model" in said


def test_another_seed_is_refused(tiny: Tiny, run: Path) -> None:
    assert "seed_everything: expected 0, which decides the order of data" in refused(
        tiny, "--seed_everything=1"
    )


def test_another_corpus_is_refused(tiny: Tiny, run: Path) -> None:
    write_corpus(tiny.corpus, texts(70))
    assert "expected the training blocks of the checkpoint" in refused(tiny)


def test_another_optimizer_is_refused(tiny: Tiny, run: Path) -> None:
    """Also one that has other groups."""
    said = refused(tiny, "--model.optimizer=lit_entrodrop.training.optim.Muon")
    assert "model.optimizer: expected AdamW, whose state is in the checkpoint, got Muon" in said


def test_checkpoints_of_before_named_groups_go_on(tiny: Tiny, run: Path) -> None:
    path = run / "checkpoints" / "step=10.ckpt"
    checkpoint = torch.load(path, weights_only=True)
    del checkpoint["parameter_groups"]
    for group in checkpoint["optimizer_states"][0]["param_groups"]:
        del group["name"]
    torch.save(checkpoint, path)
    said = refused(tiny, "--model.groups=[{match: norm, lr: 0.5}]")
    assert "model.groups: expected the parameter groups of the checkpoint" in said
    resume(tiny)
    assert read_metrics(run).index[-1] == 20


def test_another_model_is_refused(tiny: Tiny, run: Path) -> None:
    said = refused(tiny, "--model.lm.config_overrides={intermediate_size: 48}")
    assert "ckpt_path: expected a checkpoint of the configured model" in said


def test_shards_are_evaluated_but_not_resumed_without_their_strategy(
    tiny: Tiny,
) -> None:
    sharded = ["--config", str(CONFIGS / "strategy" / "fsdp2.yaml"), "--trainer.max_epochs=1"]
    run = fit(tiny, "run", *sharded, world_size=2)
    tiny.run("validate", "--ckpt_path=best")
    trained = read_metrics(run)["val/loss"].iloc[-1]
    assert validation_loss(run) == pytest.approx(trained, rel=1e-5)
    said = refused(tiny, step=5)
    assert "expected a checkpoint that SingleDeviceStrategy wrote" in said
    assert "which FSDP2Strategy wrote: resume with that strategy" in said
