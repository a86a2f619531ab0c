from pathlib import Path

import pytest
import torch
from lightning import Trainer

from lit_entrodrop.commands.compare.running.process_pool import Task
from lit_entrodrop.commands.tune.search.search import state_of
from lit_entrodrop.training.callbacks.nan_guard import NaNGuard


def test_run_that_diverges_is_pruned_and_not_tried_again(tmp_path: Path) -> None:
    trainer = Trainer(logger=False, callbacks=[guard := NaNGuard()], log_every_n_steps=0)
    loss, blocks = torch.tensor(torch.nan), torch.tensor([3])
    guard.on_train_batch_end(trainer, None, {"loss": loss}, {"block_id": blocks})
    with pytest.raises(FloatingPointError) as stopped:
        guard.on_train_epoch_end(trainer, trainer.lightning_module)
    task = Task("plain-000", [], tmp_path / "fit.log", tmp_path / "lock")
    assert state_of(task, 0) == "finished"
    assert state_of(task, 1) == "failed"
    task.log.write_text(f"lit-entrodrop: error: {stopped.value}\n")
    assert state_of(task, 1) == "pruned"
