"""The loggers of a fit: ``metrics.csv``, and TensorBoard unless the config names others."""

import shutil
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from lightning.pytorch.loggers import Logger, TensorBoardLogger
from lightning.pytorch.utilities import rank_zero_only, rank_zero_warn

from lit_entrodrop.runs.evaluations import RUN_INFO
from lit_entrodrop.runs.metrics_file import FILE_NAME as METRICS
from lit_entrodrop.runs.metrics_file import MetricsFile
from lit_entrodrop.runs.writing import naming_path
from lit_entrodrop.runtime.lightning_compat import purge_after
from lit_entrodrop.training.callbacks.samples import FILE_NAME as SAMPLES
from lit_entrodrop.training.callbacks.throughput import FILE_NAME as THROUGHPUT

FOLDER = "tensorboard"


class TensorBoard(TensorBoardLogger):
    """Log to ``tensorboard/`` in the run folder; a resumed run continues the same curves."""

    def __init__(self, folder: str | Path) -> None:
        super().__init__(save_dir=folder, name="", version=FOLDER, default_hp_metric=False)

    @rank_zero_only
    def log_hyperparams(self, *args: Any, **kwargs: Any) -> None:
        """Do nothing: ``config.yaml`` has the settings."""

    @rank_zero_only
    def log_metrics(self, *args: Any, **kwargs: Any) -> None:
        """Log values; a thread writes them, so that its errors appear at a later call."""
        with naming_path(Path(self.log_dir)):
            super().log_metrics(*args, **kwargs)

    @rank_zero_only
    def save(self) -> None:
        """Write buffered points to disk."""
        with naming_path(Path(self.log_dir)):
            self.experiment.flush()

    @rank_zero_only
    def continue_after(self, step: int) -> None:
        """Hide the points after the step of the checkpoint from which the run resumes."""
        purge_after(self, step)


def remove_logs(folder: Path) -> None:
    """Remove the logs of a run that ended before its first checkpoint, with a warning."""
    if not (folder / METRICS).exists():
        return
    logs = [folder / name for name in (METRICS, THROUGHPUT, SAMPLES, RUN_INFO, FOLDER)]
    found = [path for path in logs if path.exists()]
    names = ", ".join(path.name for path in found)
    rank_zero_warn(f"{folder}: removed {names} of a run that ended before its first checkpoint")
    for path in found:
        shutil.rmtree(path) if path.is_dir() else path.unlink()


def loggers(given: Any, folder: Path) -> list[Logger]:
    """Return the loggers of a fit.

    Args:
        given: ``trainer.logger``: a logger or a list of loggers that replace TensorBoard; null or
            true for TensorBoard if it is installed; false for no logger, not even
            ``metrics.csv``.
        folder: Path to the run folder.
    """
    if given is False:
        return []
    if given in (None, True):
        found = find_spec("tensorboard") is not None
        return [MetricsFile(folder), *([TensorBoard(folder)] if found else [])]
    others = given if isinstance(given, list) else [given]
    return [MetricsFile(folder), *others]
