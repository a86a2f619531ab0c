"""Means of metrics between two logs of a Trainer."""

from collections.abc import Callable, Mapping
from typing import Any

from torch import Tensor

from regularizers.outputs import Outputs
from regularizers.training_step import TrainingStep


class MeanMetrics:
    """Means of metrics over micro-batches and ranks.

    Args:
        gather: Function that joins lists of all ranks.

    >>> import torch
    >>> means = MeanMetrics(gather=list)
    >>> for loss in (1.0, 3.0):
    ...     means.note({"loss": torch.tensor(loss)})
    >>> means.pop(), means.pop()
    ({'loss': 2.0}, {})
    """

    def __init__(self, gather: Callable[[list[Any]], list[Any]]) -> None:
        self._gather = gather
        self._sums: dict[str, tuple[Tensor | float, int]] = {}

    def note(self, metrics: Mapping[str, Tensor]) -> None:
        """Add the metrics of a micro-batch."""
        for name, value in metrics.items():
            total, count = self._sums.get(name, (0.0, 0))
            self._sums[name] = total + value.float(), count + 1

    def pop(self) -> dict[str, float]:
        """Return the means since the last call; call it on every rank."""
        own = {name: float(total) / count for name, (total, count) in self._sums.items()}
        self._sums.clear()
        ranks = self._gather([own])
        names = list(dict.fromkeys(name for rank in ranks for name in rank))
        found = {name: [rank[name] for rank in ranks if name in rank] for name in names}
        return {name: sum(values) / len(values) for name, values in found.items()}


def batch_means(step: TrainingStep, outputs: Outputs) -> dict[str, Tensor]:
    """Return the mean entropy and the accuracy over the labels of a micro-batch."""
    count = step.valid.sum().clamp(min=1)
    entropy = outputs.entropy.detach().masked_fill(~step.valid, 0.0).sum() / count
    return {"entropy": entropy, "mean_token_accuracy": outputs.correct.sum() / count}
