"""All that is counted of one split while a model is evaluated on it."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from lit_entrodrop.evaluation.metrics.memorization import Memorization, MemorizationProbe
from lit_entrodrop.evaluation.metrics.token_metrics import TokenMetrics
from lit_entrodrop.runs.metric_name import MetricName
from regularizers import Outputs

Metrics = dict[str, Tensor]


class SplitMetrics(nn.Module):
    """Loss, perplexity and accuracy by entropy bucket, and memorization, of one split.

    Args:
        buckets: names of the entropy buckets.
        probe: of memorization; None for none.
    """

    def __init__(self, buckets: Sequence[str], probe: MemorizationProbe | None) -> None:
        super().__init__()
        self.tokens = TokenMetrics(buckets)
        self.memorization = None if probe is None else Memorization(probe)

    def update(
        self, outputs: Outputs, valid: Tensor, batch: Mapping[str, Tensor], edges: Tensor | None
    ) -> None:
        """Count the tokens of a batch.

        Args:
            outputs: of a clean forward pass.
            valid: ``[B, T]`` bool, tokens that count.
            batch: its ids, and ``entropy`` by the frozen scorer if that is known.
            edges: between the buckets, nats.
        """
        self.tokens.update(outputs, valid, batch.get("entropy"), edges)
        if self.memorization is not None:
            ids = batch["position_ids"], batch["document_ids"]
            self.memorization.update(outputs.correct, valid, *ids)

    def pop(self) -> Metrics:
        """Return the metrics over all ranks by name, and start again."""
        metrics: Metrics = self.tokens.compute()
        self.tokens.reset()
        if self.memorization is not None:
            share = self.memorization.compute()
            self.memorization.reset()
            # No document is long enough.
            metrics |= {} if torch.isnan(share) else {"memorized": share}
        return metrics


def generalization_gap(held_out: Metrics, trained_on: Metrics) -> Metrics:
    """Return by how much each loss on held-out text exceeds that on training text, in nats.

    Args:
        held_out: metrics of held-out text.
        trained_on: metrics of training text, without regularizers.

    >>> generalization_gap({"loss": 3.0, "accuracy": 0.2}, {"loss": 2.5, "accuracy": 0.3})
    {'loss': 0.5}
    """
    return {
        name: held_out[name] - trained_on[name]
        for name in held_out
        if MetricName.parse(name).kind == "loss" and name in trained_on
    }
