"""Stop all ranks at one step after any of them was told to end."""

from types import FrameType

import lightning as L
import torch
from torch import Tensor

from lit_entrodrop.host_copy import Event, start_copy


class Preemption:
    """Agrees on SIGTERM in a reduction that every optimizer step does anyway.

    Lightning 2.6 asks rank 0 before every batch, for which each waits for its device, and stops a
    rank that was signalled alone, at which the others fail. Here the ranks learn of a signal one
    step later and end together. A single process is left to Lightning.

    Args:
        trainer: before it installs its signal handlers, i.e. in ``on_fit_start`` at the latest.
    """

    def __init__(self, trainer: L.Trainer) -> None:
        self.trainer = trainer
        self.signalled = False
        self._told: tuple[list[Tensor], Event | None] | None = None
        if trainer.world_size > 1:
            # Lightning offers no public way to either.
            trainer._signal_connector._sigterm_notifier_fn = self._on_sigterm  # type: ignore[method-assign]
            trainer.fit_loop.epoch_loop._broadcast_sigterm_tensor = lambda: None  # type: ignore[method-assign]

    def reduce_sum(self, scalar: Tensor) -> Tensor:
        """Sum a scalar over ranks, once per optimizer step, and hear of signals on the way."""
        if self.trainer.world_size == 1:
            return scalar
        signal = torch.full_like(scalar, float(self.signalled))
        both: Tensor = self.trainer.strategy.reduce(torch.stack([scalar, signal]), reduce_op="sum")
        total, signals = both.unbind()
        told, self._told = self._told, start_copy(signals)
        if told is not None:
            self._hear(*told)
        return total

    def _hear(self, copies: list[Tensor], arrived: Event | None) -> None:
        if arrived is not None:
            arrived.synchronize()
        if copies[0].item() > 0:
            self.trainer._signal_connector.received_sigterm = True

    def _on_sigterm(self, signum: int, _: FrameType | None) -> None:
        launcher = self.trainer.strategy.launcher
        if launcher is not None and not self.signalled:
            launcher.kill(signum)
        self.signalled = True
