"""Guard against a loss or weights that are not finite, before a checkpoint saves them."""

from pathlib import Path
from typing import Any, NoReturn

import lightning as L
import torch
from torch import Tensor

from lit_entrodrop.runtime.ranks import all_agree
from lit_entrodrop.runtime.sharding import local_shard

ADVICE = "Lower the learning rate, lengthen the warm-up, or look at these blocks"


class NaNGuard(L.Callback):
    """Stop when loss or weights become infinite or NaN, naming the step and its blocks.

    Losses are checked together every ``trainer.log_every_n_steps`` optimizer steps, before each
    validation and before each checkpoint, so that other steps do not wait for the device. Weights
    are checked before each checkpoint, because the last step may have ruined them after a finite
    loss; the previous checkpoint is kept.
    """

    def __init__(self) -> None:
        self._seen: list[tuple[int, Tensor, Tensor]] = []
        self._last_blocks: Tensor | None = None

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: Any, outputs: Any, batch: Any, *_: Any
    ) -> None:
        """Store the loss, and check the stored losses if they are due."""
        self._last_blocks = batch["block_id"]
        self._seen.append((trainer.global_step, outputs["loss"].detach(), batch["block_id"]))
        every: int = trainer.log_every_n_steps  # type: ignore[attr-defined]
        # The training metrics are read at the same steps.
        if every and trainer.global_step % every == 0:
            self._check(trainer)

    def on_validation_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Check the losses before the model is evaluated."""
        self._check(trainer)

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Check the losses before the model is saved."""
        self._check(trainer)

    def on_save_checkpoint(
        self, trainer: L.Trainer, pl_module: L.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Check losses and weights before a checkpoint is written."""
        self._check(trainer)
        # Of this rank: not every strategy has whole tensors in its state dict.
        finite = all(local_shard(weight).isfinite().all() for weight in pl_module.parameters())
        if not all_agree(finite) and self._last_blocks is not None:
            problem = "weights: expected finite numbers, got NaN or infinity"
            _stop(problem, trainer, trainer.global_step, self._last_blocks)

    def _check(self, trainer: L.Trainer) -> None:
        seen, self._seen = self._seen, []
        if not seen:
            return
        finite = torch.stack([loss for _, loss, _ in seen]).isfinite().tolist()
        for is_finite, (step, loss, blocks) in zip(finite, seen, strict=True):
            if not is_finite:
                _stop(f"loss: expected a finite number, got {loss.item()}", trainer, step, blocks)


def _stop(problem: str, trainer: L.Trainer, step: int, blocks: Tensor) -> NoReturn:
    names = ("best_model_path", "last_model_path")
    paths = [getattr(each, name, "") for each in trainer.checkpoint_callbacks for name in names]
    kept = next((path for path in reversed(paths) if path and Path(path).exists()), "none yet")
    raise FloatingPointError(
        f"{problem} at step {step} on blocks {blocks.tolist()}; last good checkpoint: {kept}. "
        f"{ADVICE}"
    )
