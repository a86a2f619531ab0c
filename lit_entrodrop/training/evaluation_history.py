"""What the evaluations of a run have told its regularizers, and tell again when it goes on."""

from collections.abc import Mapping, Sequence

from torch import Tensor

from regularizers import Regularizers


class EvaluationHistory:
    """All evaluations of a run, in their order.

    What regularizers learn from them is a function of this history alone, so that it is all that a
    checkpoint must hold of it, under every strategy.

    Args:
        regularizers: that are told.
    """

    def __init__(self, regularizers: Regularizers) -> None:
        self._regularizers = regularizers
        self.told: list[dict[str, float]] = []

    def tell(self, metrics: Mapping[str, Tensor | float]) -> None:
        """Tell the regularizers the metrics of an evaluation, the same on every rank."""
        self.told.append({name: float(value) for name, value in metrics.items()})
        self._regularizers.on_evaluation(self.told[-1])

    def tell_again(self, told: Sequence[Mapping[str, float]]) -> None:
        """Tell the evaluations of a checkpoint to regularizers that have heard none."""
        for metrics in told:
            self.tell(metrics)
