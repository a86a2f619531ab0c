"""What methods are compared with: losses of a model in float64, by NumPy and SciPy."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import scipy.special
from torch import Tensor

from regularizers import TrainingStep


def log_probabilities(logits: Tensor) -> np.ndarray[Any, Any]:
    """Return ln p(· | x_<t) in float64 at t, row 0 unused."""
    rows = scipy.special.log_softmax(logits.detach().double().numpy(), axis=-1)
    return np.concatenate([rows[:, :1], rows[:, :-1]], axis=1)


def valid_tokens(step: TrainingStep) -> list[tuple[int, int]]:
    return [(row, place) for row, place in (step.labels != -100).nonzero().tolist()]


def losses(logits: Tensor, step: TrainingStep) -> dict[tuple[int, int], float]:
    """Return −ln p of each valid token in float64."""
    rows = log_probabilities(logits)
    return {
        (row, place): -float(rows[row, place, int(step.labels[row, place])])
        for row, place in valid_tokens(step)
    }


def mean(values: Sequence[float]) -> float:
    return float(np.mean(np.asarray(values, dtype=np.float64)))
