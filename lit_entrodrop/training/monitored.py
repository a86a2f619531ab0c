"""Checks of the metrics that callbacks monitor, such as that of early stopping."""

import math
from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from typing import Any

import lightning as L
from torch import Tensor

from lit_entrodrop.evaluation.metrics.token_metric import is_better_if_lower
from lit_entrodrop.runs.metric_name import VALIDATION_LOSS
from lit_entrodrop.training.callbacks.checkpoints import Checkpoints

# Callbacks of these packages log no metrics of their own.
KNOWN_PACKAGES = ("lightning", "lit_entrodrop")


def check_monitored_names(trainer: L.Trainer, names: Sequence[str]) -> None:
    """Refuse a monitored metric that the run does not have, or whose worst value would be the best.

    Args:
        trainer: Trainer with callbacks.
        names: Metrics of the run.

    Raises:
        ValueError: If a callback monitors a metric in the wrong direction; or another metric, and
            all callbacks are of known packages.
    """
    for setting, callback in _monitoring(trainer):
        metric = callback.monitor
        mode, better = ("min", "lower") if is_better_if_lower(metric) else ("max", "higher")
        if metric in names and getattr(callback, "mode", mode) != mode:
            raise ValueError(
                f"{setting}.mode: expected {mode}, because a {better} {metric} is better, got "
                f"{callback.mode}: set mode to {mode}"
            )
    sources = [trainer.lightning_module, *trainer.callbacks]  # type: ignore[attr-defined]
    if any(type(each).__module__.partition(".")[0] not in KNOWN_PACKAGES for each in sources):
        return
    for setting, callback in _monitoring(trainer):
        if (name := callback.monitor) not in names:
            near = get_close_matches(name, names, cutoff=0.3) or [VALIDATION_LOSS]
            raise ValueError(
                f"{setting}.monitor: expected a metric of this run, got {name!r}: set e.g. "
                f"{near[0]}, or data.validation for metrics of validation"
            )


def check_monitored_values(trainer: L.Trainer, metrics: Mapping[str, Tensor]) -> None:
    """Refuse a monitored metric without a finite value, which would end the run in silence.

    Raises:
        ValueError: If a callback monitors a metric of an evaluation that is NaN or infinite.
    """
    for setting, callback in _monitoring(trainer):
        value = float(metrics.get(callback.monitor, 0.0))
        if not math.isfinite(value):
            raise ValueError(
                f"{setting}.monitor: expected a finite {callback.monitor}, got {value}: the model "
                "diverged, or no label is in this entropy bucket; monitor "
                f"{VALIDATION_LOSS}, or set other model.entropy_buckets"
            )


def _monitoring(trainer: L.Trainer) -> list[tuple[str, Any]]:
    """Return each callback that monitors a metric, with the place of its settings."""
    callbacks = trainer.callbacks  # type: ignore[attr-defined]
    return [
        ("checkpoints" if isinstance(each, Checkpoints) else _place(each), each)
        for each in callbacks
        if isinstance(getattr(each, "monitor", None), str)
    ]


def _place(callback: L.Callback) -> str:
    return f"trainer.callbacks: {type(callback).__name__}"
