"""Criterion of a run: the metric that selects its best evaluation and its best checkpoint."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import yaml

from lit_entrodrop.runs.layout import CONFIG
from lit_entrodrop.runs.metric_name import VALIDATION_LOSS, is_of_average, of_average

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class Criterion:
    """Metric that selects the best evaluation.

    Args:
        metric: Name of the metric.
        mode: Whether the lowest or the highest value of the metric is the best.
        averaged: Whether the averaged weights compete too, by the same metric.

    >>> Criterion().score(2.0), Criterion("task/exact_match", "max").score(0.5)
    (2.0, -0.5)
    """

    metric: str = VALIDATION_LOSS
    mode: Literal["min", "max"] = "min"
    averaged: bool = False

    @property
    def metrics(self) -> list[str]:
        """Names of the metrics that compete.

        >>> Criterion(averaged=True).metrics
        ['val/loss', 'val_average/loss']
        """
        other = of_average(self.metric) if self.averaged else None
        return [self.metric] if other is None else [self.metric, other]

    def best_metric(self, values: Mapping[str, float]) -> str | None:
        """Return which competing metric of an evaluation is the best; None if it has none.

        >>> Criterion(averaged=True).best_metric({"val/loss": 2.1, "val_average/loss": 2.0})
        'val_average/loss'
        """
        known = [name for name in self.metrics if not math.isnan(values.get(name, math.nan))]
        # The first wins a tie.
        return min(known, key=lambda name: self.score(values[name]), default=None)

    def better_weights(self, values: Mapping[str, float]) -> Literal["averaged", "raw"]:
        """Return which weights an evaluation prefers; raw ones if it has no competing metric."""
        return "averaged" if is_of_average(self.best_metric(values) or self.metric) else "raw"

    def score(self, value: float) -> float:
        """Return a value such that lower is better."""
        return -float(value) if self.mode == "max" else float(value)

    def best_step(self, evaluated: "pd.DataFrame") -> int:
        """Return the step of the best of some evaluations, indexed by step.

        Raises:
            ValueError: If none has the metric.
        """
        values = evaluated.reindex(columns=self.metrics).map(self.score).min(axis="columns")
        if (values := values.dropna()).empty:
            raise ValueError(
                f"run: expected {self.metric}, which checkpoints.monitor names, in the metrics of "
                "the evaluations, found none: train for at least one epoch"
            )
        return int(values.idxmin())


def best_value_of(metric: str) -> str:
    """Return what selects the best evaluation, in words.

    >>> best_value_of("val/loss"), best_value_of("exam/loss")
    ('the lowest validation loss', 'the best exam/loss')
    """
    return "the lowest validation loss" if metric == VALIDATION_LOSS else f"the best {metric}"


def read_criterion(folder: Path) -> Criterion:
    """Return the criterion in the config of a run folder; the default if it has none."""
    try:
        config = yaml.safe_load((folder / CONFIG).read_text(encoding="utf-8"))
        monitor, mode = config["checkpoints"]["monitor"], config["checkpoints"]["mode"]
        averaged = monitor is None and config["model"].get("average") is not None
        return Criterion(monitor or VALIDATION_LOSS, mode, averaged)
    except (OSError, ValueError, LookupError, TypeError, yaml.YAMLError):
        return Criterion()
