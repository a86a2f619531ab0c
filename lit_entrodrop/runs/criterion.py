"""Criterion of a run: the metric that selects its best evaluation and its best checkpoint."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import yaml

from lit_entrodrop.runs.layout import CONFIG
from lit_entrodrop.runs.metric_name import VALIDATION_LOSS

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class Criterion:
    """Metric that selects the best evaluation.

    >>> Criterion().score(2.0), Criterion("task/exact_match", "max").score(0.5)
    (2.0, -0.5)
    """

    metric: str = VALIDATION_LOSS
    mode: Literal["min", "max"] = "min"

    def score(self, value: float) -> float:
        """Return a value such that lower is better."""
        return -float(value) if self.mode == "max" else float(value)

    def best_step(self, evaluated: "pd.DataFrame") -> int:
        """Return the step of the best of some evaluations, indexed by step.

        Raises:
            ValueError: If none has the metric.
        """
        values = evaluated.reindex(columns=[self.metric])[self.metric].dropna()
        if values.empty:
            raise ValueError(
                f"run: expected {self.metric}, which checkpoints.monitor names, in the metrics of "
                "the evaluations, found none: train for at least one epoch"
            )
        return int(values.map(self.score).idxmin())


def best_value_of(metric: str) -> str:
    """Return what selects the best evaluation, in words.

    >>> best_value_of("val/loss"), best_value_of("exam/loss")
    ('the lowest validation loss', 'the best exam/loss')
    """
    return "the lowest validation loss" if metric == VALIDATION_LOSS else f"the best {metric}"


def read_criterion(folder: Path) -> Criterion:
    """Return the criterion in the config of a run folder; the default if it has none."""
    try:
        settings = yaml.safe_load((folder / CONFIG).read_text(encoding="utf-8"))["checkpoints"]
        return Criterion(settings["monitor"] or VALIDATION_LOSS, settings["mode"])
    except (OSError, ValueError, LookupError, TypeError, yaml.YAMLError):
        return Criterion()
