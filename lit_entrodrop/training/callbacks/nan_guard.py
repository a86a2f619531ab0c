"""Stop a run whose loss is no longer a number, before a checkpoint keeps it."""

from pathlib import Path
from typing import Any, NoReturn

import lightning as L
import torch
from torch import Tensor

from lit_entrodrop.runtime.ranks import all_agree
from lit_entrodrop.runtime.sharding import local_shard


class NaNGuard(L.Callback):
    """Stop when loss or weights become infinite or NaN, naming the step and its blocks.

    Losses are looked at together, every ``trainer.log_every_n_steps`` optimizer steps, before each
    validation and before each checkpoint, so that no other step waits for the device. Weights are
    looked at before each checkpoint, as the last step may have spoilt them after a good loss: the
    checkpoint before is kept.
    """

    def __init__(self) -> None:
        self._seen: list[tuple[int, Tensor, Tensor]] = []
        self._last_blocks: Tensor | None = None

    def on_train_batch_end(
        self,
        trainer: L.Trainer,
        pl_module: L.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
    ) -> None:
        """Remember the loss."""
        self._last_blocks = batch["block_id"]
        self._seen.append((trainer.global_step, outputs["loss"].detach(), batch["block_id"]))
        every: int = trainer.log_every_n_steps  # type: ignore[attr-defined]
        # As the training metrics do, so that no other step waits.
        if every and trainer.global_step % every == 0:
            self._check(trainer)

    def on_validation_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Look at the losses before the model is judged and kept."""
        self._check(trainer)

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Look at the losses before the model is kept."""
        self._check(trainer)

    def on_save_checkpoint(
        self, trainer: L.Trainer, pl_module: L.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Look at the losses and the weights before a checkpoint is written over a good one."""
        self._check(trainer)
        # What each rank holds: no strategy's state dict is only tensors that can be asked.
        finite = all(local_shard(weight).isfinite().all() for weight in pl_module.parameters())
        if not all_agree(finite) and self._last_blocks is not None:
            _stop(
                "weights: expected finite numbers, got others",
                trainer,
                trainer.global_step,
                self._last_blocks,
            )

    def _check(self, trainer: L.Trainer) -> None:
        seen, self._seen = self._seen, []
        if not seen:
            return
        finite = torch.stack([loss for _, loss, _ in seen]).isfinite().tolist()
        for is_finite, (step, loss, blocks) in zip(finite, seen, strict=True):
            if not is_finite:
                _stop(f"loss: expected a finite number, got {loss.item()}", trainer, step, blocks)


def _stop(problem: str, trainer: L.Trainer, step: int, blocks: Tensor) -> NoReturn:
    paths = [
        getattr(saving, name, "")
        for saving in trainer.checkpoint_callbacks
        for name in ("best_model_path", "last_model_path")
    ]
    kept = next((path for path in reversed(paths) if path and Path(path).exists()), "none yet")
    raise FloatingPointError(
        f"{problem} at step {step} on blocks {blocks.tolist()}; last good checkpoint: {kept}. "
        "Lower the learning rate, lengthen the warm-up, or look at these blocks"
    )
