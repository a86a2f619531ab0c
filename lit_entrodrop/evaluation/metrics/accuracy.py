"""Top-1 accuracy of next-token predictions."""

from torch import Tensor

from lit_entrodrop.evaluation.metrics.token_metric import TokenMetric
from regularizers import Outputs


class Accuracy(TokenMetric):
    """Share of tokens to which the model gives the highest probability, in [0, 1]."""

    name = "accuracy"
    title = "accuracy"
    form = ".1%"
    lower_is_better = False

    def values(self, outputs: Outputs) -> Tensor:
        """Return whether no token is more probable than the label."""
        return outputs.correct
