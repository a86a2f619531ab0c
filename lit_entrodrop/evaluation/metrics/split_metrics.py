"""Metrics of one split."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from lit_entrodrop.evaluation.metrics.memorization import Memorization, MemorizationProbe
from lit_entrodrop.evaluation.metrics.token_metrics import TokenMetrics
from lit_entrodrop.runs.metric_name import MetricName
from regularizers import Outputs

Metrics = dict[str, Tensor]


class SplitMetrics(nn.Module):
    """Means over tokens by entropy bucket, and memorization, of one split.

    Args:
        buckets: Names of the entropy buckets, from low to high.
        probe: Memorization probe; None disables it.
    """

    def __init__(self, buckets: Sequence[str], probe: MemorizationProbe | None) -> None:
        super().__init__()
        self.tokens = TokenMetrics(buckets)
        self.memorization = None if probe is None else Memorization(probe)

    def update(
        self, outputs: Outputs, valid: Tensor, batch: Mapping[str, Tensor], edges: Tensor | None
    ) -> None:
        """Add the tokens of a batch.

        Args:
            outputs: Outputs of a forward pass on clean input.
            valid: Whether each token counts, ``[B, T]`` bool.
            batch: Batch, with ``entropy`` under the reference model if it is known.
            edges: Entropies between the buckets, nats; None if unknown.
        """
        self.tokens.update(outputs, valid, batch.get("entropy"), edges)
        if self.memorization is not None:
            ids = batch["position_ids"], batch["document_ids"]
            self.memorization.update(outputs.correct, valid, *ids)

    def pop(self) -> Metrics:
        """Return and reset the metrics over all ranks, by name."""
        metrics: Metrics = self.tokens.compute()
        self.tokens.reset()
        if self.memorization is not None:
            share = self.memorization.compute()
            self.memorization.reset()
            # NaN if no document is long enough.
            metrics |= {} if torch.isnan(share) else {"memorized": share}
        return metrics


def generalization_gap(held_out: Metrics, trained_on: Metrics) -> Metrics:
    """Return loss on held-out text minus loss on training text, nats per token, by name.

    Args:
        held_out: Metrics on held-out text.
        trained_on: Metrics on training text, without regularizers.

    >>> generalization_gap({"loss": 3.0, "accuracy": 0.2}, {"loss": 2.5, "accuracy": 0.3})
    {'loss': 0.5}
    """
    return {
        name: held_out[name] - trained_on[name]
        for name in held_out
        if MetricName.parse(name).kind == "loss" and name in trained_on
    }
