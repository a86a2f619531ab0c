"""Lightning callbacks of a run."""

from lit_entrodrop.callbacks.checkpoints import Checkpoints
from lit_entrodrop.callbacks.evaluation_files import EvaluationFiles
from lit_entrodrop.callbacks.nan_guard import NaNGuard
from lit_entrodrop.callbacks.overfitting_monitor import OverfittingMonitor
from lit_entrodrop.callbacks.prediction_writer import PredictionWriter
from lit_entrodrop.callbacks.progress_bar import RunProgressBar
from lit_entrodrop.callbacks.samples import Samples
from lit_entrodrop.callbacks.throughput import Throughput

__all__ = [
    "Checkpoints",
    "EvaluationFiles",
    "NaNGuard",
    "OverfittingMonitor",
    "PredictionWriter",
    "RunProgressBar",
    "Samples",
    "Throughput",
]
