"""Say during training since when, and on which tokens, the model overfits."""

from pathlib import Path
from typing import final

import lightning as L
from lightning.pytorch.trainer.states import TrainerFn
from lightning.pytorch.utilities import rank_zero_info, rank_zero_only, rank_zero_warn

from lit_entrodrop.evaluation.diagnosis import Diagnosis, diagnose
from lit_entrodrop.runs.evaluations import FOLDER


@final
class OverfittingMonitor(L.Callback):
    """Warn as soon as a group of tokens overfits, or training diverges, and say what to do.

    The rule is that of :mod:`lit_entrodrop.evaluation.diagnosis`; it reads what
    ``monitors.evaluations`` writes, and so stays silent without it.
    """

    def __init__(self) -> None:
        self._told: set[str] = set()

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        """Find the run's folder."""
        self.folder = Path(trainer.default_root_dir)

    @rank_zero_only
    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Warn of groups that have begun to overfit, and of training that diverges."""
        if trainer.state.fn != TrainerFn.FITTING or (found := self._diagnose()) is None:
            return
        alarming = {
            f"{name} {verdict.kind}"
            for name, verdict in found.verdicts.items()
            if verdict.kind in ("overfits", "diverges")
        }
        if alarming - self._told:
            rank_zero_warn(" ".join(found.sentences))
        self._told |= alarming

    @rank_zero_only
    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Sum up."""
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
