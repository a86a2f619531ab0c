"""Uses of private Lightning APIs, with the reason for each.

Checked with lightning 2.6.6; ``pyproject.toml`` bounds the version. ``test_lightning_compat.py``
fails when one is renamed, or when a patch is no longer needed.
"""

from collections.abc import Callable, Mapping
from types import FrameType
from typing import Any, get_args

import lightning as L
import torch
from lightning.fabric.plugins.environments.slurm import SLURMEnvironment
from lightning.fabric.utilities.device_dtype_mixin import _update_properties
from lightning.pytorch.loggers import TensorBoardLogger

from lit_entrodrop.runtime.steps import Position

# Private methods that subclasses override or call, by Lightning class; each use states why.
OVERRIDDEN = {
    "lightning.pytorch.trainer.trainer.Trainer": ["_run_stage"],
    "lightning.pytorch.cli.LightningCLI": [
        "_get",
        "_parse_ckpt_path",
        "_prepare_subcommand_kwargs",
    ],
    "lightning.pytorch.callbacks.RichProgressBar": [
        "_get_train_description",
        "_init_progress",
        "_stop_progress",
        "_update",
    ],
    "lightning.pytorch.strategies.DeepSpeedStrategy": ["_init_config_if_needed"],
    "lightning.pytorch.strategies.ModelParallelStrategy": ["_get_process_group_backend"],
}


class StageTrainer(L.Trainer):
    """Trainer that can call a function in place of its loops.

    Devices, ranks and the model are set up by then; a callback could not replace the loops.

    Attributes:
        stage: Function to call; None for Lightning's loops.
    """

    stage: Callable[[], None] | None = None

    def _run_stage(self) -> Any:
        return self.stage() if self.stage else super()._run_stage()


def count_epochs_once(trainer: L.Trainer) -> None:
    """Let a run bounded by ``max_steps`` resume within an epoch.

    Lightning ignores epochs in this case, and after a resume would count the epoch of the
    checkpoint twice.
    """
    trainer.fit_loop._iteration_based_training = lambda: False  # type: ignore[method-assign]


def is_accumulating(trainer: L.Trainer) -> bool:
    """Return whether the gradient of the current optimizer step lacks micro-batches.

    A checkpoint does not save an incomplete gradient.
    """
    return trainer.fit_loop._should_accumulate()


def validates_next(trainer: L.Trainer) -> bool:
    """Return whether validation comes after the current batch.

    Lightning decides this after ``on_train_batch_end``, in which checkpoints are saved.
    """
    loop = trainer.fit_loop
    return bool(loop._data_fetcher and loop.epoch_loop._should_check_val_fx(loop._data_fetcher))


def take_signals(trainer: L.Trainer, handle: Callable[[int, FrameType | None], None]) -> None:
    """Install a handler of SIGTERM in place of Lightning's, and switch off its requeuing by SLURM.

    Call it before Lightning installs its handlers. Before every batch, Lightning broadcasts whether
    rank 0 received a signal, which makes each rank wait for its device. If only one rank is
    signaled, Lightning stops it alone, and the others fail.
    """
    environment = trainer._accelerator_connector.cluster_environment
    if isinstance(environment, SLURMEnvironment):
        environment.auto_requeue = False
    trainer._signal_connector._sigterm_notifier_fn = handle  # type: ignore[method-assign,assignment]
    trainer.fit_loop.epoch_loop._broadcast_sigterm_tensor = lambda: None  # type: ignore[method-assign]


def stop_after_batch(trainer: L.Trainer) -> None:
    """End the run as Lightning does after SIGTERM, once all callbacks have seen the batch."""
    trainer._signal_connector.received_sigterm = True


def position_of(checkpoint: Mapping[str, Any]) -> Position:
    """Return the position at which a run saved a checkpoint."""
    loops = checkpoint["loops"]["fit_loop"]
    epochs = loops["epoch_progress"]["current"]
    within = epochs["started"] > epochs["processed"]
    batches = loops["epoch_loop.batch_progress"]["current"]["ready"]
    return Position(checkpoint["global_step"], epochs["processed"], batches if within else 0)


def purge_after(logger: TensorBoardLogger, step: int) -> None:
    """Let TensorBoard hide the points after the optimizer step from which the run resumes.

    The public option is read when the logger is created, before the checkpoint is read.
    """
    logger.experiment.close()
    logger._kwargs["purge_step"] = step + 1
    logger._experiment = None


def set_device(module: L.LightningModule, device: torch.device) -> None:
    """Set the device that a module reports, without moving its parameters.

    ``LightningModule.to`` would move them from host memory, where CPU offloading keeps them.
    """
    _update_properties(module, device=device)


def parse_counts_as_integers() -> None:
    """Let the settings of the trainer that are a count or a share parse whole numbers as counts.

    Their type is ``int | float | None``, tried in this order. `typing.Optional` returns an equal
    union that another library made before, and PyTorch 2.11 makes one with ``float`` first.
    """
    annotations = L.Trainer.__init__.__annotations__
    for name, annotation in annotations.items():
        if set(get_args(annotation)) == {int, float, type(None)}:
            annotations[name] = int | float | None
