"""End all ranks at one step, with a checkpoint, after any of them was told to end."""

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Mapping
from types import FrameType
from typing import Any

import lightning as L
import torch
from lightning.fabric.plugins.environments.slurm import SLURMEnvironment
from lightning.pytorch.utilities.exceptions import SIGTERMException
from torch import Tensor

from lit_entrodrop.runtime.async_copy import Event, start_copy
from lit_entrodrop.training.callbacks.checkpoints import ends_or_validates

SIGNALS = (signal.SIGTERM, signal.SIGUSR1)


class Preemption(L.Callback):
    """Agrees on SIGTERM and SIGUSR1 in a reduction that every optimizer step does anyway.

    Lightning 2.6 asks rank 0 before every batch, for which each waits for its device, stops a rank
    that was signalled alone, at which the others fail, and may stop between two steps. Here all
    ranks stop after the same step: a single process after the one that it is in, several one step
    later. Under SLURM, SIGUSR1 means that the time is over, and the job is put back in the queue.
    """

    def __init__(self) -> None:
        self._signalled: int | None = None
        self._heard: int | None = None
        self._told: tuple[list[Tensor], Event | None] | None = None
        self._earlier: Any = None

    def on_fit_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Take signals over from Lightning, before it installs its own handlers."""
        self._trainer = trainer
        environment = trainer._accelerator_connector.cluster_environment
        if isinstance(environment, SLURMEnvironment):
            environment.auto_requeue = False
        # Lightning offers no public way to either.
        trainer._signal_connector._sigterm_notifier_fn = self._on_signal  # type: ignore[method-assign]
        trainer.fit_loop.epoch_loop._broadcast_sigterm_tensor = lambda: None  # type: ignore[method-assign]
        if threading.current_thread() is threading.main_thread():
            self._earlier = signal.signal(signal.SIGUSR1, self._on_signal)

    def on_train_batch_end(
        self,
        trainer: L.Trainer,
        pl_module: L.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
    ) -> None:
        """End the run after this step, once checkpoint and metrics are kept."""
        if not ends_or_validates(trainer, batch_idx):
            self._end_if_told(trainer)

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """End the run after this validation, once checkpoint and metrics are kept."""
        self._end_if_told(trainer)

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """End the run after this epoch, once checkpoint and metrics are kept."""
        self._end_if_told(trainer)

    def _end_if_told(self, trainer: L.Trainer) -> None:
        if self._heard is not None:
            trainer._signal_connector.received_sigterm = True

    def on_exception(
        self, trainer: L.Trainer, pl_module: L.LightningModule, exception: BaseException
    ) -> None:
        """Say how the run goes on, and put its job back in the queue if its time was over."""
        if not isinstance(exception, SIGTERMException) or not trainer.is_global_zero:
            return
        name = signal.Signals(self._heard or signal.SIGTERM).name
        kept = [getattr(saving, "last_model_path", "") for saving in trainer.checkpoint_callbacks]
        last = next(filter(None, kept), None)
        how = f"last checkpoint: {last}. The same command goes on with --ckpt_path last"
        ended = f"{name}: ended after step {trainer.global_step}"
        print(f"{ended}; {how if last else 'no checkpoint was kept'}", file=sys.stderr)
        if self._heard == signal.SIGUSR1 and "SLURM_JOB_ID" in os.environ:
            requeue(os.environ)

    def teardown(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        """Give the signal back."""
        if self._earlier is not None:
            signal.signal(signal.SIGUSR1, self._earlier)
            self._earlier = None

    def reduce_sum(self, scalar: Tensor) -> Tensor:
        """Sum a scalar over ranks, once per optimizer step, and hear of signals on the way."""
        trainer = self._trainer
        if trainer.world_size == 1:
            self._heard = self._signalled
            return scalar
        signals = [float(self._signalled == signum) for signum in SIGNALS]
        own = torch.stack([scalar, *scalar.new_tensor(signals)])
        total, *signalled = trainer.strategy.reduce(own, reduce_op="sum").unbind()
        told, self._told = self._told, start_copy(torch.stack(signalled))
        if told is not None:
            copies, arrived = told
            if arrived is not None:
                arrived.synchronize()
            for signum, ranks in zip(SIGNALS, copies[0].tolist(), strict=True):
                self._heard = signum if ranks else self._heard
        return total

    def _on_signal(self, signum: int, _: FrameType | None) -> None:
        launcher = self._trainer.strategy.launcher
        if launcher is not None and self._signalled is None:
            launcher.kill(signum)
        self._signalled = signum


def requeue(environment: Mapping[str, str]) -> None:
    """Put the SLURM job that an environment describes back in the queue."""
    job = environment["SLURM_JOB_ID"]
    if "SLURM_ARRAY_JOB_ID" in environment:
        job = f"{environment['SLURM_ARRAY_JOB_ID']}_{environment['SLURM_ARRAY_TASK_ID']}"
    try:
        subprocess.run(["scontrol", "requeue", job], check=True)
    except (OSError, subprocess.CalledProcessError) as error:
        print(f"SLURM job {job} could not be put back in the queue: {error}", file=sys.stderr)
