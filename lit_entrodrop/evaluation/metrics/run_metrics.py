"""All that a run measures: means over training steps, and each split that it is evaluated on."""

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

# What the metrics of a split are called.
PREFIXES = {
    "validation": "val",
    "clean_train": "clean_train",
    "forgetting": "forgetting",
    "test": "test",
}
Scores = dict[str, Tensor]


class RunMetrics(nn.Module):
    """Training means that cost nothing until they are read, and metrics of each split.

    Args:
        buckets: names of the entropy buckets.
        probe: of memorization; None for none.
    """

    def __init__(self, buckets: Sequence[str], probe: MemorizationProbe | None) -> None:
        super().__init__()
        self.training_means = WeightedMeans()
        self.splits = nn.ModuleDict({split: SplitMetrics(buckets, probe) for split in PREFIXES})

    def add_step(
        self, loss: Tensor, weight: Tensor, others: Mapping[str, Tensor], one: Tensor
    ) -> None:
        """Remember a micro-batch.

        Args:
            loss: summed over its tokens, nats.
            weight: of its tokens, summed.
            others: what regularizers tell of it, by name.
            one: the weight of those, a scalar on the device.
        """
        self.training_means.add(TRAIN_LOSS, loss.detach(), weight)
        for name, value in others.items():
            self.training_means.add(name, value, one)

    def pop_training(self, reduce_sum: Callable[[Tensor], Any]) -> dict[str, float]:
        """Return the means since the last time, over all ranks; empty if there is nothing new.

        Args:
            reduce_sum: sums a tensor over ranks.
        """
        return self.training_means.pop(reduce_sum) if self.training_means else {}

    def update(
        self, split: str, outputs: Outputs, batch: Mapping[str, Tensor], edges: Tensor | None
    ) -> Scores:
        """Count a batch of a split.

        Args:
            split: of the data module.
            outputs: of a clean forward pass.
            batch: its ids, and ``entropy`` by the frozen scorer if that is known.
            edges: between the buckets, nats.

        Returns:
            ``nll`` and ``entropy`` of each token, nats, and whether it is ``valid``, ``[B, T]``.
        """
        valid = predicted_labels(batch["labels"], batch["document_ids"]) != IGNORE_INDEX
        cast(SplitMetrics, self.splits[split]).update(outputs, valid, batch, edges)
        return {"nll": outputs.nll, "entropy": outputs.entropy, "valid": valid}

    def pop(self, splits: Sequence[str]) -> Metrics:
        """Return the metrics of some splits and their gap, over all ranks, and start again.

        Args:
            splits: of the data module.

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
