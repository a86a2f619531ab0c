"""Means over the tokens of a split, overall and by entropy bucket."""

from collections.abc import Sequence
from itertools import product

import torch
from torch import Tensor
from torchmetrics import Metric

from lit_entrodrop.entropy.buckets import bucket_of
from lit_entrodrop.evaluation.metrics.token_metric import all_token_metrics
from lit_entrodrop.runs.metric_name import MetricName
from regularizers import Outputs

# Sums over millions of tokens; Apple's GPUs have no float64.
WIDEST = torch.float32 if torch.backends.mps.is_available() else torch.float64


class TokenMetrics(Metric):
    """All metrics of :func:`all_token_metrics`, over all tokens and by entropy bucket.

    Without reference entropies, only the metrics over all tokens are computed.

    Args:
        buckets: Names of the entropy buckets, from low to high.
    """

    full_state_update = False
    tokens: Tensor
    sums: Tensor

    def __init__(self, buckets: Sequence[str]) -> None:
        super().__init__()
        self.token_metrics = all_token_metrics()
        # None is the group of all tokens.
        self.groups = [None, *buckets]
        shape = len(self.token_metrics), len(self.groups)
        self.add_state("tokens", torch.zeros(shape[1], dtype=WIDEST), dist_reduce_fx="sum")
        self.add_state("sums", torch.zeros(shape, dtype=WIDEST), dist_reduce_fx="sum")

    def update(
        self,
        outputs: Outputs,
        valid: Tensor,
        reference_entropy: Tensor | None = None,
        edges: Tensor | None = None,
    ) -> None:
        """Add the tokens of a batch.

        Args:
            outputs: Outputs of a forward pass on clean input.
            valid: Whether each token counts, ``[B, T]`` bool.
            reference_entropy: Entropy under the reference model, ``[B, T]`` nats; NaN if unknown.
            edges: Entropies between the buckets, ``[buckets - 1]`` nats.
        """
        members = [valid]
        if reference_entropy is not None and edges is not None:
            bucket = bucket_of(reference_entropy, edges)
            members += [valid & (bucket == number) for number in range(len(self.groups) - 1)]
        values = [each.values(outputs).to(WIDEST) for each in self.token_metrics.values()]
        for group, chosen in enumerate(members):
            self.tokens[group] += chosen.sum()
            for number, each in enumerate(values):
                # A product with the mask would keep NaN.
                self.sums[number, group] += each.where(chosen, 0).sum()

    def names(self) -> list[str]:
        """Return the names of all metrics, without a split."""
        found = product(self.token_metrics.values(), self.groups)
        return [
            str(MetricName("", metric.name, bucket))
            for metric, bucket in found
            if bucket is None or metric.by_bucket
        ]

    def compute(self) -> dict[str, Tensor]:
        """Return the metrics by name, without a split; NaN if no token was counted."""
        means = self.sums / self.tokens
        bucketed = bool(self.tokens[1:].sum() > 0)
        results = {}
        for (number, metric), (group, bucket) in product(
            enumerate(self.token_metrics.values()), enumerate(self.groups)
        ):
            if bucket is None or (bucketed and metric.by_bucket):
                name = str(MetricName("", metric.name, bucket))
                results[name] = metric.of_mean(means[number, group]).float()
        return results
