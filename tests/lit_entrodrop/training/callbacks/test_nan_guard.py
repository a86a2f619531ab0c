from collections.abc import Sequence
from pathlib import Path
from typing import Any

import lightning as L
import pytest
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from torch import Tensor

from lit_entrodrop.training.callbacks import Checkpoints, NaNGuard
from regularizers import Outputs, Regularizer, TrainingStep
from tests.helpers.tiny import Tiny


class Poison(Regularizer):
    """Make the loss infinite or NaN at one step."""

    def __init__(self, step: int, value: float = float("nan")) -> None:
        super().__init__()
        self.step = step
        self.value = value

    def on_loss(self, loss: Tensor, outputs: Outputs, step: TrainingStep) -> Tensor:
        return loss + self.value if step.global_step == self.step else loss


class Spoil(L.Callback):
    """Set a weight to NaN after a step, as an update may, and remember its blocks."""

    blocks: list[int]

    def __init__(self, step: int) -> None:
        self.step = step

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: Any, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if trainer.global_step == self.step:
            self.blocks = batch["block_id"].tolist()
            with torch.no_grad():
                next(pl_module.parameters())[0, 0] = torch.nan


def fit(tiny: Tiny, *regularizers: Regularizer, every: int, callbacks: Sequence[Any] = ()) -> Path:
    """Fit four epochs of ten steps with the callbacks of the program, and some more."""
    data = tiny.data()
    own = [NaNGuard(), Checkpoints()]
    trainer = tiny.trainer(
        max_epochs=4,
        log_every_n_steps=every,
        enable_checkpointing=True,
        default_root_dir=tiny.folder,
        callbacks=[*callbacks, *own],
    )
    trainer.fit(tiny.module(*regularizers), datamodule=data)
    return tiny.folder / "checkpoints"


def assert_good(path: Path) -> None:
    weights = torch.load(path, weights_only=True)["state_dict"]
    assert all(tensor.isfinite().all() for tensor in weights.values())


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize("every", [1, 3, 1000])
def test_step_and_blocks_are_named_and_the_checkpoint_before_is_kept(
    tiny: Tiny, value: float, every: int
) -> None:
    batches: list[list[int]] = []

    class Blocks(L.Callback):
        def on_train_batch_start(self, trainer: Any, module: Any, batch: Any, index: int) -> None:
            batches.append(batch["block_id"].tolist())

    with pytest.raises(FloatingPointError) as caught:
        fit(tiny, Poison(14, value), every=every, callbacks=[Blocks()])
    message = str(caught.value)
    assert f"got {value} at step 15 on blocks {batches[14]};" in message
    last = tiny.folder / "checkpoints" / "last.ckpt"
    assert f"last good checkpoint: {last.resolve()}" in message
    assert "Lower the learning rate" in message
    assert len(batches) <= 20
    assert torch.load(last, weights_only=True)["global_step"] == 10
    assert_good(last)
    assert_good(tiny.folder / "checkpoints" / "best.ckpt")


def test_without_a_checkpoint_it_says_so(tiny: Tiny) -> None:
    with pytest.raises(FloatingPointError, match=r"at step 1 on .*last good checkpoint: none yet"):
        fit(tiny, Poison(0), every=1)
    assert not (tiny.folder / "checkpoints").exists()


def test_weights_that_the_last_step_spoilt_are_not_kept(tiny: Tiny) -> None:
    """After the last step of an epoch, no loss tells of them."""
    spoil = Spoil(20)
    with pytest.raises(FloatingPointError) as caught:
        fit(tiny, every=1, callbacks=[spoil])
    named = (
        f"weights: expected finite numbers, got NaN or infinity at step 20 on blocks {spoil.blocks}"
    )
    assert named in str(caught.value)
    last = tiny.folder / "checkpoints" / "last.ckpt"
    assert torch.load(last, weights_only=True)["global_step"] == 10
    assert_good(last)


def test_frequent_checkpoints_are_guarded_too(tiny: Tiny) -> None:
    folder = tiny.folder / "often"
    often = ModelCheckpoint(folder, "often-{step}", every_n_train_steps=2, save_top_k=-1)
    with pytest.raises(FloatingPointError, match="at step 15 "):
        fit(tiny, Poison(14), every=1000, callbacks=[often])
    kept = folder / "often-step=14.ckpt"
    assert torch.load(kept, weights_only=True)["global_step"] == 14
    for path in folder.iterdir():
        assert_good(path)


def test_healthy_run_is_left_alone(tiny: Tiny) -> None:
    folder = fit(tiny, every=3)
    assert_good(folder / "last.ckpt")
