"""What ends a run from within, at an exact place: as a power cut would, or by an exception."""

import os
import resource
import signal
from typing import Any

import lightning as L

from lit_entrodrop.training.callbacks import checkpoints

PHASES = ("micro_batch", "before_step", "batch_end", "epoch_end", "write", "rename", "link")


class KillAt(L.Callback):
    """Kills the own process once the run has come to a step and, there, to a phase.

    Args:
        step: optimizer steps done.
        phase: ``micro_batch`` before the second micro-batch of the step; ``before_step`` with all
            gradients there; ``batch_end`` after the step; ``epoch_end`` before the checkpoint of an
            epoch; ``write``, ``rename`` and ``link`` within the next checkpoint: after some bytes,
            before it gets its name, and before ``last.ckpt`` points to it.
        after_bytes: of the file that is being written.
    """

    def __init__(self, step: int, phase: str, after_bytes: int = 1000) -> None:
        self.step = step
        self.phase = phase
        self.after_bytes = after_bytes

    def on_train_batch_start(
        self, trainer: L.Trainer, pl_module: Any, batch: Any, batch_idx: int
    ) -> None:
        if batch_idx % trainer.accumulate_grad_batches:
            self._reach(trainer, "micro_batch")

    def on_before_optimizer_step(self, trainer: L.Trainer, *_: Any) -> None:
        self._reach(trainer, "before_step")

    def on_train_batch_end(self, trainer: L.Trainer, *_: Any) -> None:
        self._reach(trainer, "batch_end")

    def on_train_epoch_end(self, trainer: L.Trainer, *_: Any) -> None:
        self._reach(trainer, "epoch_end")

    def on_save_checkpoint(self, trainer: L.Trainer, *_: Any) -> None:
        if trainer.global_step < self.step:
            return
        if self.phase == "write":
            # The kernel then ends a process that writes on.
            signal.signal(signal.SIGXFSZ, signal.SIG_DFL)
            resource.setrlimit(resource.RLIMIT_FSIZE, (self.after_bytes, self.after_bytes))
        elif self.phase == "rename":
            checkpoints._flush = kill  # type: ignore[assignment]
        elif self.phase == "link":
            checkpoints._point = kill  # type: ignore[assignment]

    def _reach(self, trainer: L.Trainer, phase: str) -> None:
        if self.phase == phase and trainer.global_step >= self.step:
            kill()


class Interrupted(Exception):
    """Stands for the death of a process, in a test that continues."""


class InterruptAt(L.Callback):
    """Raises at the start of the first batch after some optimizer steps."""

    def __init__(self, step: int) -> None:
        self.step = step

    def on_train_batch_start(self, trainer: L.Trainer, *_: Any) -> None:
        if trainer.global_step == self.step:
            raise Interrupted


def kill(*_: Any) -> None:
    """End this process at once."""
    os.kill(os.getpid(), signal.SIGKILL)
