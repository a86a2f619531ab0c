"""Lightning callbacks of a run."""

from lit_entrodrop.training.callbacks.checkpoints import Checkpoints
from lit_entrodrop.training.callbacks.evaluation_files import EvaluationFiles
from lit_entrodrop.training.callbacks.nan_guard import NaNGuard
from lit_entrodrop.training.callbacks.overfitting_monitor import OverfittingMonitor
from lit_entrodrop.training.callbacks.prediction_writer import PredictionWriter
from lit_entrodrop.training.callbacks.progress_bar import RunProgressBar
from lit_entrodrop.training.callbacks.samples import Samples
from lit_entrodrop.training.callbacks.stay_stopped import StayStopped
from lit_entrodrop.training.callbacks.task_scores import TaskScores
from lit_entrodrop.training.callbacks.throughput import Throughput

__all__ = [
    "Checkpoints",
    "EvaluationFiles",
    "NaNGuard",
    "OverfittingMonitor",
    "PredictionWriter",
    "RunProgressBar",
    "Samples",
    "StayStopped",
    "TaskScores",
    "Throughput",
]
