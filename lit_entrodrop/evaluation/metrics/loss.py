"""Loss per token, and its exponential."""

from torch import Tensor

from lit_entrodrop.evaluation.metrics.token_metric import TokenMetric
from regularizers import Outputs


class Loss(TokenMetric):
    """Negative log-likelihood, in nats per token."""

    name = "loss"
    title = "loss"

    def values(self, outputs: Outputs) -> Tensor:
        """Return the negative log-likelihood of each token."""
        return outputs.nll


class Perplexity(Loss):
    """Exponential of the loss."""

    name = "perplexity"
    title = "perplexity"
    form = ".2f"
    compared = False  # It ranks runs as the loss does.

    def of_mean(self, mean: Tensor) -> Tensor:
        """Return the exponential of the mean loss."""
        return mean.exp()
