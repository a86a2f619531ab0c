"""The loggers that come with a run, beside its ``metrics.csv``."""

from pathlib import Path
from typing import Any

from lightning.pytorch.loggers import Logger, TensorBoardLogger
from lightning.pytorch.utilities import rank_zero_only

from lit_entrodrop.runs.metrics_file import MetricsFile

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


def loggers(given: Any, folder: Path) -> list[Logger]:
    """Return the loggers of a fit.

    Args:
        given: ``trainer.logger``: a logger or several, which take the place of TensorBoard; null or
            true for that; false for none at all.
        folder: the run's.
    """
    if given is False:
        return []
    if given in (None, True):
        return [MetricsFile(folder), TensorBoard(folder)]
    others = given if isinstance(given, list) else [given]
    return [MetricsFile(folder), *others]
