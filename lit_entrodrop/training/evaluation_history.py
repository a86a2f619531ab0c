"""History of a run's evaluations, from which regularizers learn."""

from collections.abc import Mapping, Sequence

from torch import Tensor

from regularizers import Regularizers


class EvaluationHistory:
    """All evaluations of a run, in order.

    The state of regularizers that follow evaluations is a function of this history alone. So a
    checkpoint saves the history in place of their state, under every strategy.

    Args:
        regularizers: Regularizers that receive the evaluations.
    """

    def __init__(self, regularizers: Regularizers) -> None:
        self._regularizers = regularizers
        self.metrics: list[dict[str, float]] = []

    def add(self, metrics: Mapping[str, Tensor | float]) -> None:
        """Pass the metrics of an evaluation to the regularizers.

        Args:
            metrics: Scalars by name, equal on every rank.
        """
        self.metrics.append({name: float(value) for name, value in metrics.items()})
        self._regularizers.on_evaluation(self.metrics[-1])

    def replay(self, history: Sequence[Mapping[str, float]]) -> None:
        """Pass the evaluations of a checkpoint to regularizers that have received none."""
        for metrics in history:
            self.add(metrics)
