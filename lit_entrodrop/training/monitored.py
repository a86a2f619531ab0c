"""Checks of the metrics that callbacks monitor, such as that of early stopping."""

import math
from collections.abc import Mapping, Sequence
from difflib import get_close_matches

import lightning as L
from torch import Tensor

from lit_entrodrop.runs.metric_name import VALIDATION_LOSS

# Callbacks of these packages log no metrics of their own.
KNOWN_PACKAGES = ("lightning", "lit_entrodrop")


def check_monitored_names(trainer: L.Trainer, names: Sequence[str]) -> None:
    """Refuse a monitored metric that the run does not have.

    Args:
        trainer: Trainer with callbacks.
        names: Metrics of the run.

    Raises:
        ValueError: If a callback monitors another metric, and all callbacks are of known packages.
    """
    sources = [trainer.lightning_module, *trainer.callbacks]  # type: ignore[attr-defined]
    if any(type(each).__module__.partition(".")[0] not in KNOWN_PACKAGES for each in sources):
        return
    for callback, name in _monitored(trainer):
        if name not in names:
            near = get_close_matches(name, names, cutoff=0.3) or [VALIDATION_LOSS]
            raise ValueError(
                f"trainer.callbacks: expected {callback} to monitor a metric of this run, got "
                f"{name!r}: set e.g. {near[0]}, or data.validation for metrics of validation"
            )


def check_monitored_values(trainer: L.Trainer, metrics: Mapping[str, Tensor]) -> None:
    """Refuse a monitored metric without a finite value, which would end the run in silence.

    Raises:
        ValueError: If a callback monitors a metric of an evaluation that is NaN or infinite.
    """
    for callback, name in _monitored(trainer):
        value = float(metrics.get(name, 0.0))
        if not math.isfinite(value):
            raise ValueError(
                f"trainer.callbacks: expected a finite {name}, which {callback} monitors, got "
                f"{value}: the model diverged, or no label is in this entropy bucket; monitor "
                f"{VALIDATION_LOSS}, or set other model.entropy_buckets"
            )


def _monitored(trainer: L.Trainer) -> list[tuple[str, str]]:
    """Return class and metric of each callback that monitors one."""
    callbacks = trainer.callbacks  # type: ignore[attr-defined]
    return [
        (type(callback).__name__, callback.monitor)
        for callback in callbacks
        if isinstance(getattr(callback, "monitor", None), str)
    ]
