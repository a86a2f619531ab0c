import logging

import pytest
import torch
from lightning.pytorch.callbacks import EarlyStopping

from lit_entrodrop.training.callbacks import Checkpoints, StayStopped
from tests.helpers.tiny import Tiny


def fit(tiny: Tiny, patience: int, max_epochs: int = 6, resume: bool = True) -> int:
    """Fit without a learning rate, so that nothing improves, and return the number of steps."""
    stopping = EarlyStopping("val/loss", patience=patience)
    trainer = tiny.trainer(
        max_epochs=max_epochs,
        callbacks=[stopping, StayStopped(), Checkpoints()],
        enable_checkpointing=True,
        default_root_dir=tiny.folder,
    )
    module = tiny.module(optimizer=lambda params: torch.optim.SGD(params, lr=0.0))
    last = tiny.folder / "checkpoints" / "last.ckpt" if resume else None
    trainer.fit(module, datamodule=tiny.data(), ckpt_path=last)
    return trainer.global_step


def test_run_that_early_stopping_ended_stays_ended_until_its_patience_rises(
    tiny: Tiny, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    steps = fit(tiny, patience=1, resume=False)
    epoch = steps // 2
    for _ in range(2):
        assert (
            caplog.text.count(f"early stopping ended this run after step {steps}. Monitored") == 1
        )
        assert "val/loss did not improve in the last 1 records" in caplog.text
        assert "raise the patience" in caplog.text
        caplog.clear()
        assert fit(tiny, patience=1) == steps
    caplog.clear()
    assert fit(tiny, patience=2) == steps + epoch
    assert fit(tiny, patience=9) == 6 * epoch
    assert caplog.text.count("early stopping ended this run") == 1
