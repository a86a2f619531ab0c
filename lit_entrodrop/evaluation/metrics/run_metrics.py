"""Metrics of a run: means over training steps, and metrics of each evaluated split."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

import torch
from torch import Tensor, nn

from lit_entrodrop.evaluation.metrics.memorization import Memorization, MemorizationProbe
from lit_entrodrop.evaluation.metrics.source_losses import SourceLosses, sums_by_source
from lit_entrodrop.evaluation.metrics.token_metrics import TokenMetrics
from lit_entrodrop.evaluation.metrics.weighted_means import WeightedMeans
from lit_entrodrop.runs.metric_name import (
    AUXILIARY_LOSS,
    SKIPPED_STEPS,
    TRAIN_LOSS,
    MetricName,
    prefix_of,
)
from regularizers import Outputs
from regularizers.functional import IGNORE_INDEX, predicted_labels

TokenValues = dict[str, Tensor]


class RunMetrics(nn.Module):
    """Means over training steps, computed only when read, and metrics of each split.

    Args:
        buckets: Names of the entropy buckets, from low to high.
        probe: Memorization probe; None disables it.
    """

    def __init__(self, buckets: Sequence[str], probe: MemorizationProbe | None) -> None:
        super().__init__()
        self.training_means = WeightedMeans()
        self.buckets, self.probe = list(buckets), probe
        # By split, from its first batch on.
        self.tokens: dict[str, TokenMetrics] = {}
        self.memorization: dict[str, Memorization] = {}
        self._scores: dict[str, Tensor] = {}
        self.sources: dict[str, SourceLosses] = {}

    def add_step(
        self,
        loss: Tensor,
        weight: Tensor,
        others: Mapping[str, Tensor],
        auxiliary_loss: Tensor | None = None,
    ) -> None:
        """Add a micro-batch: its summed loss, nats, with the sum of the weights of its tokens.

        The loss that the model itself adds to the mean is apart. Other metrics, of regularizers,
        have a weight of 1.
        """
        self.training_means.add(TRAIN_LOSS, loss.detach(), weight)
        if auxiliary_loss is not None:
            self.training_means.add(AUXILIARY_LOSS, auxiliary_loss.detach() * weight, weight)
        one = torch.ones_like(weight, dtype=torch.float32)
        for name, value in others.items():
            self.training_means.add(name, value, one)

    def add_penalties(self, penalties: Mapping[str, Tensor]) -> None:
        """Add the penalties on parameters of an optimizer step, scalars, by name."""
        for name, value in penalties.items():
            self.training_means.add(name, value, torch.ones_like(value))

    def add_sources(self, names: Sequence[str], batch: Mapping[str, Tensor], nll: Tensor) -> None:
        """Add the losses of the tokens of a micro-batch, ``[B, T]`` nats, by source of the row."""
        if names:
            sums = sums_by_source(batch, nll, len(names))
            for name, total, tokens in zip(names, *sums, strict=True):
                self.training_means.add(str(MetricName("train", f"{name}_loss")), total, tokens)

    def add_skipped(self, skipped: Tensor) -> None:
        """Add whether an optimizer step was skipped, a scalar, because no token had a weight."""
        self.training_means.add(SKIPPED_STEPS, skipped.float(), torch.ones_like(skipped).float())

    def update(
        self,
        split: str,
        outputs: Outputs,
        batch: Mapping[str, Tensor],
        edges: Tensor | None,
        sources: Sequence[str] = (),
    ) -> TokenValues:
        """Add a batch of a split.

        Args:
            split: Name of the split in the data module.
            outputs: Outputs of a forward pass on clean input.
            batch: Batch, with ``entropy`` under the reference model if it is known.
            edges: Entropies between the buckets, nats; None if unknown.
            sources: Names of the sources, if rows have a ``source``.

        Returns:
            ``nll`` and ``entropy`` of each token, nats, and whether it is ``valid``, ``[B, T]``.
        """
        valid = predicted_labels(batch["labels"], batch["document_ids"]) != IGNORE_INDEX
        if split not in self.tokens:
            self.tokens[split] = TokenMetrics(self.buckets).to(valid.device)
            if self.probe:
                self.memorization[split] = Memorization(self.probe).to(valid.device)
        self.tokens[split].update(outputs, valid, batch.get("entropy"), edges)
        if split in self.memorization:
            ids = batch["position_ids"], batch["document_ids"]
            self.memorization[split].update(outputs.correct, valid, *ids)
        if "source" in batch:
            if split not in self.sources:
                self.sources[split] = SourceLosses(sources).to(valid.device)
            self.sources[split].update(batch, outputs.nll)
        return {"nll": outputs.nll, "entropy": outputs.entropy, "valid": valid}

    def add_scores(self, scores: Mapping[str, Tensor]) -> None:
        """Add metrics that a callback has computed, equal on all ranks, to the next evaluation."""
        self._scores |= scores

    def names(self, splits: Sequence[str]) -> list[str]:
        """Return the names of the metrics that a callback can monitor if some splits are evaluated.

        The memorized share is missing in a run whose documents are all short.
        """
        own = TokenMetrics(self.buckets).names() + ["memorized"] * bool(self.probe)
        found = [TRAIN_LOSS, *(f"{prefix_of(split)}/{name}" for split in splits for name in own)]
        if "clean_train" in splits:
            parsed = map(MetricName.parse, found)
            gap = [n for n in parsed if (n.split, n.kind) == ("val", "loss")]
            found += [str(replace(name, split="gap")) for name in gap]
        return found

    def pop(self, splits: Sequence[str]) -> dict[str, Tensor]:
        """Return and reset the metrics of some splits over all ranks, by name.

        ``gap/loss`` is the loss on held-out text minus the loss on training text.
        """
        found = {
            MetricName.parse(f"{prefix_of(split)}/{name}"): value
            for split in splits
            for name, value in self._pop(split).items()
        }
        for name, value in list(found.items()):
            clean = found.get(replace(name, split="clean_train"))
            if name.split == "val" and name.kind == "loss" and clean is not None:
                found[replace(name, split="gap")] = value - clean
        scores, self._scores = self._scores, {}
        return {str(name): value for name, value in found.items()} | scores

    def _pop(self, split: str) -> dict[str, Tensor]:
        metrics = self.tokens[split].compute()
        self.tokens[split].reset()
        if split in self.memorization:
            share = self.memorization[split].compute()
            self.memorization[split].reset()
            # NaN if no document is long enough.
            metrics |= {} if torch.isnan(share) else {"memorized": share}
        if split in self.sources:
            metrics |= self.sources[split].compute()
            self.sources[split].reset()
        return metrics
