"""Lightning callbacks of a run."""

from lit_entrodrop.callbacks.checkpoints import Checkpoints
from lit_entrodrop.callbacks.nan_guard import NaNGuard
from lit_entrodrop.callbacks.prediction_writer import PredictionWriter

__all__ = ["Checkpoints", "NaNGuard", "PredictionWriter"]
