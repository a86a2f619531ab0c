"""Each test fails when Lightning renames a private part, or no longer needs a patch."""

import inspect
from importlib.metadata import version
from pathlib import Path
from pkgutil import resolve_name
from typing import Any

import lightning as L
import pytest
import torch
from jsonargparse import ArgumentParser
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.loggers import TensorBoardLogger
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from lit_entrodrop.runtime import lightning_compat
from lit_entrodrop.runtime.lightning_compat import (
    OVERRIDDEN,
    count_epochs_once,
    is_accumulating,
    position_of,
    purge_after,
    set_device,
    stop_after_batch,
    take_signals,
    validates_next,
)
from lit_entrodrop.runtime.steps import Position


def test_the_version_is_one_that_was_checked() -> None:
    assert lightning_compat.__doc__ is not None
    assert version("lightning").startswith("2.6."), "check each part, then raise the bound"


@pytest.mark.parametrize(
    ("owner", "name"), [(owner, name) for owner, names in OVERRIDDEN.items() for name in names]
)
def test_overridden_methods_exist(owner: str, name: str) -> None:
    assert callable(getattr(resolve_name(owner), name))


class Plain(L.LightningModule):
    """A module without any of the patches."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = torch.nn.Linear(1, 1)

    def training_step(self, batch: Any, batch_idx: int) -> Any:
        return self.layer(batch).sum()

    def validation_step(self, batch: Any, batch_idx: int) -> None: ...

    def configure_optimizers(self) -> Any:
        return torch.optim.SGD(self.parameters(), 0.1)


class CountOnce(Plain):
    """A module that counts epochs once."""

    def on_fit_start(self) -> None:
        count_epochs_once(self.trainer)


def trainer(folder: Path, *callbacks: L.Callback, **settings: Any) -> L.Trainer:
    quiet = {
        "enable_progress_bar": False,
        "enable_model_summary": False,
        "logger": False,
        "accelerator": "cpu",
        "default_root_dir": folder,
    }
    return L.Trainer(**{**quiet, "callbacks": list(callbacks), **settings})


def fit(run: L.Trainer, module: L.LightningModule, **settings: Any) -> L.Trainer:
    batches = torch.utils.data.DataLoader(torch.ones(8, 1), batch_size=1)
    run.fit(module, batches, batches, **settings)
    return run


@pytest.mark.parametrize(("module", "counted"), [(Plain, 4), (CountOnce, 3)])
def test_lightning_counts_the_epoch_of_a_checkpoint_twice(
    module: type[Plain], counted: int, tmp_path: Path
) -> None:
    keep = ModelCheckpoint(tmp_path, save_top_k=-1, filename="{step}", save_on_train_epoch_end=True)
    fit(trainer(tmp_path, keep, max_steps=8), module())
    path = tmp_path / "step=8.ckpt"
    resumed = fit(trainer(tmp_path, max_steps=20), module(), ckpt_path=path, weights_only=True)
    assert resumed.global_step == 20
    assert resumed.fit_loop.epoch_progress.total.processed == counted


class Watch(L.Callback):
    """Records what comes after each batch."""

    def __init__(self) -> None:
        self.validates: list[bool] = []
        self.validated: list[int] = []
        self.accumulating: list[bool] = []

    def on_train_batch_end(self, trainer: L.Trainer, *_: Any) -> None:
        self.validates.append(validates_next(trainer))
        self.accumulating.append(is_accumulating(trainer))

    def on_validation_start(self, trainer: L.Trainer, *_: Any) -> None:
        if not trainer.sanity_checking:
            self.validated.append(len(self.validates))


def test_validation_and_accumulation_are_known_at_the_end_of_a_batch(tmp_path: Path) -> None:
    watch = Watch()
    settings = {"max_epochs": 1, "val_check_interval": 4, "accumulate_grad_batches": 2}
    fit(trainer(tmp_path, watch, **settings), Plain())
    validating = [number + 1 for number, is_next in enumerate(watch.validates) if is_next]
    assert watch.validated == validating == [4, 8]
    assert watch.accumulating == [True, False] * 4


class Stop(L.Callback):
    """Ends the run as a signal does."""

    def on_train_batch_end(self, trainer: L.Trainer, _: Any, __: Any, ___: Any, index: int) -> None:
        if index == 2:
            stop_after_batch(trainer)


def test_a_stopped_run_ends_after_the_batch(tmp_path: Path) -> None:
    run = trainer(tmp_path, Stop(), max_epochs=1)
    with pytest.raises(SystemExit):
        fit(run, Plain())
    assert run.global_step == 3


def test_signals_are_taken_from_lightning(tmp_path: Path) -> None:
    run = trainer(tmp_path)
    take_signals(run, handle := lambda signum, frame: None)
    connector = run._signal_connector
    assert connector._sigterm_notifier_fn is handle
    # Lightning installs what stands under this name, and calls the other before each batch.
    assert "self._sigterm_notifier_fn" in inspect.getsource(
        type(connector).register_signal_handlers
    )
    epoch_loop = run.fit_loop.epoch_loop
    assert "self._broadcast_sigterm_tensor()" in inspect.getsource(type(epoch_loop).advance)
    assert callable(type(epoch_loop)._broadcast_sigterm_tensor)
    assert not run.received_sigterm


def test_position_is_that_of_the_checkpoint(tmp_path: Path) -> None:
    keep = ModelCheckpoint(tmp_path, every_n_train_steps=2, save_top_k=-1, filename="{step}")
    fit(trainer(tmp_path, keep, max_epochs=2, accumulate_grad_batches=2), Plain())
    positions = [
        position_of(torch.load(tmp_path / f"step={step}.ckpt", weights_only=True))
        for step in (2, 6)
    ]
    assert positions == [Position(2, 0, 4), Position(6, 1, 4)]


def test_tensorboard_can_purge_after_it_was_opened(tmp_path: Path) -> None:
    logger = TensorBoardLogger(tmp_path, name="")
    for step in range(10):
        logger.log_metrics({"loss": 0.0}, step)
    logger.save()
    purge_after(logger, 6)
    logger.log_metrics({"loss": 1.0}, 7)
    logger.save()
    events = EventAccumulator(logger.log_dir).Reload()
    assert [event.step for event in events.Scalars("loss")] == list(range(8))


def test_device_is_set_without_moving_parameters() -> None:
    module = Plain()
    set_device(module, torch.device("meta"))
    assert module.device.type == "meta"
    assert module.layer.weight.device.type == "cpu"


def test_whole_numbers_of_the_trainer_are_parsed_as_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    annotations = L.Trainer.__init__.__annotations__
    monkeypatch.setitem(annotations, "limit_train_batches", float | int | None)
    lightning_compat.parse_counts_as_integers()
    parser = ArgumentParser()
    parser.add_class_arguments(L.Trainer, "trainer")
    parsed = parser.parse_args(["--trainer.limit_train_batches=4"]).trainer.limit_train_batches
    assert isinstance(parsed, int)
