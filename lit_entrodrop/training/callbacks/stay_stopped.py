"""A run that early stopping has ended stays ended when it is resumed."""

import lightning as L
from lightning.pytorch.callbacks import EarlyStopping
from lightning.pytorch.callbacks.early_stopping import EarlyStoppingReason
from lightning.pytorch.utilities import rank_zero_info


class StayStopped(L.Callback):
    """Report why early stopping ended a run, and end it at once if it is resumed.

    Lightning would train another epoch at each start. The patience of the config replaces that of
    the checkpoint, so that a higher one continues the run.
    """

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        """Remember the configured patience, before a checkpoint is restored."""
        callbacks = trainer.callbacks  # type: ignore[attr-defined]
        early_stopping = (each for each in callbacks if isinstance(each, EarlyStopping))
        self._patience = {each: each.patience for each in early_stopping}

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Stop before the first batch if early stopping has ended the run."""
        for callback, patience in self._patience.items():
            waited = callback.stopping_reason == EarlyStoppingReason.PATIENCE_EXHAUSTED
            if waited and callback.wait_count < patience:
                callback.stopping_reason = EarlyStoppingReason.NOT_STOPPED
            callback.patience = patience
            trainer.should_stop |= callback.stopping_reason != EarlyStoppingReason.NOT_STOPPED

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Report the reason, and how to continue."""
        for callback in self._patience:
            if callback.stopping_reason != EarlyStoppingReason.NOT_STOPPED:
                reason = str(callback.stopping_reason_message)
                rank_zero_info(
                    f"early stopping ended this run after step {trainer.global_step}. "
                    f"{reason.removesuffix(' Signaling Trainer to stop.')} To continue it, raise "
                    "the patience of EarlyStopping, or remove it from trainer.callbacks."
                )
