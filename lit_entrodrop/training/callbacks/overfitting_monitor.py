"""Monitor of overfitting during training."""

from pathlib import Path
from typing import final

import lightning as L
from lightning.pytorch.trainer.states import TrainerFn
from lightning.pytorch.utilities import rank_zero_info, rank_zero_only, rank_zero_warn

from lit_entrodrop.evaluation.diagnosis import Diagnosis, diagnose
from lit_entrodrop.runs.evaluations import FOLDER


@final
class OverfittingMonitor(L.Callback):
    """Warn when a token group overfits or training diverges, with the remedy.

    The rule is the one of :mod:`lit_entrodrop.evaluation.diagnosis`. It reads the files of
    ``monitors.evaluations``; without them there is no warning.
    """

    def __init__(self) -> None:
        self._reported: set[str] = set()

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        """Set the run folder."""
        self.folder = Path(trainer.default_root_dir)

    @rank_zero_only
    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Warn about token groups that have begun to overfit, and about divergence."""
        if trainer.state.fn != TrainerFn.FITTING or (found := self._diagnose()) is None:
            return
        alarming = {
            f"{name} {verdict.kind}"
            for name, verdict in found.verdicts.items()
            if verdict.kind in ("overfits", "diverges")
        }
        if alarming - self._reported:
            rank_zero_warn(" ".join(found.sentences))
        self._reported |= alarming

    @rank_zero_only
    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Log the diagnosis of the whole run."""
        if found := self._diagnose():
            rank_zero_info("\n".join(found.sentences))

    def _diagnose(self) -> Diagnosis | None:
        if not list((self.folder / FOLDER).glob("step=*.npz")):
            return None
        try:
            return diagnose(self.folder)
        except (ValueError, OSError) as error:
            # A damaged file is no reason to end training.
            rank_zero_warn(f"monitors.overfitting: cannot judge this run: {error}")
            return None
