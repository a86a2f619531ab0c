"""The loggers that come with a run, beside its ``metrics.csv``."""

from pathlib import Path
from typing import Any

from lightning.pytorch.loggers import TensorBoardLogger
from lightning.pytorch.utilities import rank_zero_only

FOLDER = "tensorboard"


class TensorBoard(TensorBoardLogger):
    """Log to ``tensorboard/`` in the run's folder: one line per curve, however often it resumed.

    Args:
        folder: the run's folder.
    """

    def __init__(self, folder: str | Path) -> None:
        super().__init__(save_dir=folder, name="", version=FOLDER, default_hp_metric=False)

    @rank_zero_only
    def log_hyperparams(self, *args: Any, **kwargs: Any) -> None:
        """Keep nothing: ``config.yaml`` holds the settings."""

    @rank_zero_only
    def save(self) -> None:
        """Write what was logged."""
        self.experiment.flush()

    @rank_zero_only
    def go_on_after(self, step: int) -> None:
        """Let TensorBoard forget the points after a step, from which the run goes on."""
        self.experiment.close()
        self._kwargs["purge_step"] = step + 1
        self._experiment = None
