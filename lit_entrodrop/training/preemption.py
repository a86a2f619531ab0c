"""Graceful end of a run on a signal: all ranks stop after the same step, with a checkpoint."""

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
from lightning.pytorch.utilities.exceptions import SIGTERMException
from torch import Tensor

from lit_entrodrop.runtime.async_copy import Copy, start_copy
from lit_entrodrop.runtime.lightning_compat import stop_after_batch, take_signals
from lit_entrodrop.training.callbacks.checkpoints import ends_or_validates

SIGNALS = (signal.SIGTERM, signal.SIGUSR1)


class Preemption(L.Callback):
    """Ends a run after SIGTERM or SIGUSR1 to any of its processes.

    The ranks agree on the signal in a reduction that every optimizer step does anyway, so that no
    step waits for it. A single process stops after the current step, several ranks one step later.
    Under SLURM, SIGUSR1 means that the time limit is near, and the job is requeued.
    """

    def __init__(self) -> None:
        self._received: int | None = None  # by this process
        self._agreed: int | None = None  # by all ranks
        self._under_way: Copy | None = None
        self._earlier: Any = None

    def on_fit_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Handle signals in place of Lightning, which installs its own handlers after this."""
        self._trainer = trainer
        take_signals(trainer, self._on_signal)
        if threading.current_thread() is threading.main_thread():
            self._earlier = signal.signal(signal.SIGUSR1, self._on_signal)

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: Any, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """End the run after this step, once checkpoint and metrics are saved."""
        if not ends_or_validates(trainer, batch_idx):
            self._end_if_signaled(trainer)

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """End the run after this validation, once checkpoint and metrics are saved."""
        self._end_if_signaled(trainer)

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """End the run after this epoch, once checkpoint and metrics are saved."""
        self._end_if_signaled(trainer)

    def on_exception(
        self, trainer: L.Trainer, pl_module: L.LightningModule, exception: BaseException
    ) -> None:
        """Print how to resume, and requeue the SLURM job if its time limit was near."""
        if not isinstance(exception, SIGTERMException) or not trainer.is_global_zero:
            return
        name = signal.Signals(self._agreed or signal.SIGTERM).name
        paths = [getattr(saving, "last_model_path", "") for saving in trainer.checkpoint_callbacks]
        last = next(filter(None, paths), None)
        how = f"last checkpoint: {last}. To resume, run the same command with --ckpt_path last"
        ended = f"{name}: ended after step {trainer.global_step}"
        print(f"{ended}; {how if last else 'no checkpoint was saved'}", file=sys.stderr)
        if self._agreed == signal.SIGUSR1 and "SLURM_JOB_ID" in os.environ:
            requeue(os.environ)

    def teardown(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        """Restore the earlier handler of SIGUSR1."""
        if self._earlier is not None:
            signal.signal(signal.SIGUSR1, self._earlier)
            self._earlier = None

    def reduce_sum(self, scalar: Tensor) -> Tensor:
        """Sum a scalar over ranks, and exchange signals with it; called once per optimizer step."""
        trainer = self._trainer
        if trainer.world_size == 1:
            self._agreed = self._received
            return scalar
        signals = [float(self._received == signum) for signum in SIGNALS]
        own = torch.stack([scalar, *scalar.new_tensor(signals)])
        total, *counts = trainer.strategy.reduce(own, reduce_op="sum").unbind()
        # Those of the last step are on the host by now.
        last, self._under_way = self._under_way, start_copy(torch.stack(counts))
        if last is not None:
            (ranks_by_signal,), arrived = last
            if arrived is not None:
                arrived.synchronize()
            for signum, ranks in zip(SIGNALS, ranks_by_signal.tolist(), strict=True):
                self._agreed = signum if ranks else self._agreed
        return total

    def _end_if_signaled(self, trainer: L.Trainer) -> None:
        if self._agreed is not None:
            stop_after_batch(trainer)

    def _on_signal(self, signum: int, _: FrameType | None) -> None:
        launcher = self._trainer.strategy.launcher
        if launcher is not None and self._received is None:
            launcher.kill(signum)
        self._received = signum


def requeue(environment: Mapping[str, str]) -> None:
    """Requeue the SLURM job that environment variables describe."""
    job = environment["SLURM_JOB_ID"]
    if "SLURM_ARRAY_JOB_ID" in environment:
        job = f"{environment['SLURM_ARRAY_JOB_ID']}_{environment['SLURM_ARRAY_TASK_ID']}"
    try:
        subprocess.run(["scontrol", "requeue", job], check=True)
    except (OSError, subprocess.CalledProcessError) as error:
        print(f"SLURM job {job} could not be requeued: {error}", file=sys.stderr)
