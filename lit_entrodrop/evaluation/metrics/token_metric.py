"""Base class and discovery of metrics that are means over tokens."""

import importlib
import pkgutil
from abc import ABC, abstractmethod
from inspect import isabstract
from typing import ClassVar

from torch import Tensor

from lit_entrodrop.runs.metric_name import TASK, MetricName
from regularizers import Outputs

FIRST = ("loss", "perplexity", "accuracy")  # the order in tables


class TokenMetric(ABC):
    """A mean over tokens, logged for each evaluated split and for each entropy bucket.

    A subclass in any module of this package is discovered. ``metrics.csv``, the tables of
    `validate` and `test`, `report`, `compare` and early stopping then include it.

    Attributes:
        name: Name in ``metrics.csv``, such as "loss".
        title: Title in tables.
        form: Format of a value, such as ".4f" or ".1%".
        lower_is_better: Whether a lower value is better. Default: True.
        by_bucket: Whether to compute it for each entropy bucket too. Default: True.
        compared: Whether `compare` tests differences of it. Default: True.
    """

    name: ClassVar[str]
    title: ClassVar[str]
    form: ClassVar[str] = ".4f"
    lower_is_better: ClassVar[bool] = True
    by_bucket: ClassVar[bool] = True
    compared: ClassVar[bool] = True

    @abstractmethod
    def values(self, outputs: Outputs) -> Tensor:
        """Return the value of each token.

        Args:
            outputs: Outputs of a forward pass on clean input.

        Returns:
            Tensor [B, T], float or bool; values of tokens that do not count are ignored.
        """

    def of_mean(self, mean: Tensor) -> Tensor:
        """Return the metric for a mean over tokens; by default, the mean itself."""
        return mean


def all_token_metrics() -> dict[str, TokenMetric]:
    """Return the metrics that are defined in this package, by name.

    >>> list(all_token_metrics())[:3]
    ['loss', 'perplexity', 'accuracy']
    """
    package = importlib.import_module(__package__)
    names = [each.name for each in pkgutil.iter_modules(package.__path__, f"{package.__name__}.")]
    known: dict[str, TokenMetric] = {}
    for module in map(importlib.import_module, names):
        for value in vars(module).values():
            is_own = isinstance(value, type) and value.__module__ == module.__name__
            if is_own and issubclass(value, TokenMetric) and not isabstract(value):
                known[value.name] = value()
    first = [name for name in FIRST if name in known]
    return {name: known[name] for name in (*first, *sorted(known.keys() - FIRST))}


def is_better_if_lower(metric: str) -> bool:
    """Return whether a lower value of a metric is better.

    >>> is_better_if_lower("val/loss"), is_better_if_lower("task/rouge_l")
    (True, False)
    """
    name = MetricName.parse(metric)
    known = all_token_metrics().get(name.kind)
    is_score = name.split == TASK or name.kind.startswith(f"{TASK}_")
    return known.lower_is_better if known else not is_score
