"""Lightning callbacks of a run."""

from lit_entrodrop.callbacks.checkpoints import Checkpoints
from lit_entrodrop.callbacks.nan_guard import NaNGuard
from lit_entrodrop.callbacks.prediction_writer import PredictionWriter
from lit_entrodrop.callbacks.progress_bar import RunProgressBar
from lit_entrodrop.callbacks.samples import Samples
from lit_entrodrop.callbacks.throughput import Throughput

__all__ = [
    "Checkpoints",
    "NaNGuard",
    "PredictionWriter",
    "RunProgressBar",
    "Samples",
    "Throughput",
]
