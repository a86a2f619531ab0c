"""Graceful end of a run on a signal: all ranks stop after the same step, with a checkpoint."""

import os
import signal
import subprocess
import sys
import threading
import time
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

# Of several, the last counts.
SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1)
# A launcher passes on the Ctrl-C that the terminal sends to all processes.
REPEAT_SECONDS = 1.0
NOTICE = b"SIGINT: the run ends after this step; Ctrl-C again stops it at once\n"
EXIT_STATUS = 128  # plus the number of the signal


class Preemption(L.Callback):
    """Ends a run after SIGTERM, SIGINT or SIGUSR1 to any of its processes.

    The ranks agree on the signal in a reduction that every optimizer step does anyway, so that no
    step waits for it. A single process stops after the current step, several ranks one step later.
    Under SLURM, SIGUSR1 means that the time limit is near, and the job is requeued. A second SIGINT
    stops the run at once.
    """

    def __init__(self) -> None:
        self._received: int | None = None  # by this process
        self._first_interrupt = float("inf")
        self._agreed: int | None = None  # by all ranks
        self._under_way: Copy | None = None
        self._earlier: dict[int, Any] = {}

    def on_fit_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Handle signals in place of Lightning, which installs its own handlers after this."""
        self._trainer = trainer
        take_signals(trainer, self._on_signal)
        self._handle(signal.SIGUSR1)

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Handle SIGINT from the first step on; before, it stops the run at once."""
        self._handle(signal.SIGINT)

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
        if not isinstance(exception, SIGTERMException | KeyboardInterrupt):
            return
        signum = self._agreed or signal.SIGTERM
        if isinstance(exception, KeyboardInterrupt):
            signum = signal.SIGINT
        elif signum == signal.SIGINT:
            exception.code = EXIT_STATUS + signum
        if trainer.is_global_zero:
            self._report(trainer, signal.Signals(signum).name)
            if signum == signal.SIGUSR1 and "SLURM_JOB_ID" in os.environ:
                requeue(os.environ)

    def _report(self, trainer: L.Trainer, name: str) -> None:
        paths = [getattr(saving, "last_model_path", "") for saving in trainer.checkpoint_callbacks]
        last = next(filter(None, paths), None)
        how = f"last checkpoint: {last}. To resume, run the same command with --ckpt_path last"
        ended = f"{name}: ended after step {trainer.global_step}"
        print(f"{ended}; {how if last else 'no checkpoint was saved'}", file=sys.stderr)

    def teardown(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        """Restore the earlier handlers of SIGUSR1 and SIGINT."""
        for signum, handler in self._earlier.items():
            signal.signal(signum, handler)
        self._earlier = {}

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

    def _handle(self, signum: int) -> None:
        if threading.current_thread() is threading.main_thread():
            self._earlier[signum] = signal.signal(signum, self._on_signal)

    def _on_signal(self, signum: int, _: FrameType | None) -> None:
        if signum == signal.SIGINT:
            now = time.monotonic()
            if now - self._first_interrupt > REPEAT_SECONDS:
                raise KeyboardInterrupt
            if self._received is None and self._trainer.is_global_zero:
                # Unlike print, it may interrupt another print.
                os.write(2, NOTICE)
            self._first_interrupt = min(now, self._first_interrupt)
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
