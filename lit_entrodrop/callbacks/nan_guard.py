"""Stop a run whose loss is no longer a number, before a checkpoint keeps it."""

from typing import Any

import lightning as L
import torch
from torch import Tensor


class NaNGuard(L.Callback):
    """Stop when the loss becomes infinite or NaN, naming the step and its blocks.

    Losses are looked at together, every ``trainer.log_every_n_steps`` steps and before each
    validation, so that no step waits for the device. Checkpoints are written after validation: the
    last one was still good.
    """

    def __init__(self) -> None:
        self._seen: list[tuple[int, Tensor, Tensor]] = []

    def on_train_batch_end(
        self,
        trainer: L.Trainer,
        pl_module: L.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
    ) -> None:
        """Remember the loss."""
        self._seen.append((trainer.global_step, outputs["loss"].detach(), batch["block_id"]))
        if len(self._seen) >= trainer.log_every_n_steps:  # type: ignore[attr-defined]
            self._check(trainer)

    def on_validation_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Look at the losses before the model is judged and kept."""
        self._check(trainer)

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Look at the losses before the model is kept."""
        self._check(trainer)

    def _check(self, trainer: L.Trainer) -> None:
        seen, self._seen = self._seen, []
        if not seen:
            return
        finite = torch.stack([loss for _, loss, _ in seen]).isfinite().tolist()
        for is_finite, (step, loss, blocks) in zip(finite, seen, strict=True):
            if not is_finite:
                kept = getattr(trainer.checkpoint_callback, "last_model_path", "") or "none yet"
                raise FloatingPointError(
                    f"loss: expected a finite number, got {loss.item()} at step {step} on blocks "
                    f"{blocks.tolist()}; last good checkpoint: {kept}. Lower the learning rate, "
                    "lengthen the warm-up, or look at these blocks"
                )
