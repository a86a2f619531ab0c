"""Metrics of a run: means over training steps, and metrics of each evaluated split."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, cast

from torch import Tensor, nn

from lit_entrodrop.evaluation.metrics.memorization import MemorizationProbe
from lit_entrodrop.evaluation.metrics.split_metrics import Metrics, SplitMetrics, generalization_gap
from lit_entrodrop.evaluation.metrics.weighted_means import WeightedMeans
from lit_entrodrop.runs.metric_name import TRAIN_LOSS, MetricName
from regularizers import Outputs
from regularizers.functional import IGNORE_INDEX, predicted_labels

# Prefix of a split's metrics.
PREFIXES = {
    "validation": "val",
    "clean_train": "clean_train",
    "forgetting": "forgetting",
    "test": "test",
}
Scores = dict[str, Tensor]


class RunMetrics(nn.Module):
    """Means over training steps, computed only when read, and metrics of each split.

    Args:
        buckets: Names of the entropy buckets, from low to high.
        probe: Memorization probe; None disables it.
    """

    def __init__(self, buckets: Sequence[str], probe: MemorizationProbe | None) -> None:
        super().__init__()
        self.training_means = WeightedMeans()
        self.splits = nn.ModuleDict({split: SplitMetrics(buckets, probe) for split in PREFIXES})

    def add_step(
        self, loss: Tensor, weight: Tensor, others: Mapping[str, Tensor], one: Tensor
    ) -> None:
        """Add a micro-batch.

        Args:
            loss: Loss summed over the tokens of the micro-batch, nats.
            weight: Sum of the weights of its tokens.
            others: Metrics of regularizers, by name.
            one: Weight of those metrics, a scalar on the device.
        """
        self.training_means.add(TRAIN_LOSS, loss.detach(), weight)
        for name, value in others.items():
            self.training_means.add(name, value, one)

    def pop_training(self, reduce_sum: Callable[[Tensor], Any]) -> dict[str, float]:
        """Return the means since the last call, over all ranks; empty if nothing was added.

        Args:
            reduce_sum: Function that sums a tensor over ranks.
        """
        return self.training_means.pop(reduce_sum) if self.training_means else {}

    def update(
        self, split: str, outputs: Outputs, batch: Mapping[str, Tensor], edges: Tensor | None
    ) -> Scores:
        """Add a batch of a split.

        Args:
            split: Name of the split in the data module.
            outputs: Outputs of a forward pass on clean input.
            batch: Batch, with ``entropy`` under the reference model if it is known.
            edges: Entropies between the buckets, nats; None if unknown.

        Returns:
            ``nll`` and ``entropy`` of each token, nats, and whether it is ``valid``, ``[B, T]``.
        """
        valid = predicted_labels(batch["labels"], batch["document_ids"]) != IGNORE_INDEX
        cast(SplitMetrics, self.splits[split]).update(outputs, valid, batch, edges)
        return {"nll": outputs.nll, "entropy": outputs.entropy, "valid": valid}

    def pop(self, splits: Sequence[str]) -> Metrics:
        """Return and reset the metrics of some splits and their gap, over all ranks.

        Args:
            splits: Names of splits in the data module.

        Returns:
            Scalars by name: ``val/loss``, ``gap/loss_low_entropy``, …
        """
        found = {PREFIXES[split]: cast(SplitMetrics, self.splits[split]).pop() for split in splits}
        if {"val", "clean_train"} <= found.keys():
            found["gap"] = generalization_gap(found["val"], found["clean_train"])
        return {
            str(replace(MetricName.parse(name), split=split)): value
            for split, metrics in found.items()
            for name, value in metrics.items()
        }
