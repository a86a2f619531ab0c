"""Probe of a model: real training steps on some of its text, without updating the model."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import cache, cached_property, partial

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import default_collate

from lit_entrodrop.commands.doctor.configured_run import ConfiguredRun
from lit_entrodrop.data.packing.blocks import PackedBlocks
from lit_entrodrop.model.clean_pass import Batch, score_clean
from lit_entrodrop.training.models import Reference
from regularizers import Outputs, Regularizer, Regularizers, TrainingStep

TOKENS = 4096  # maximum of a batch
ROWS = 16
# Budget of a forward pass on a CPU, which takes some seconds; the checks run about 15 of them.
CPU_FLOPS = 5e10
SHORTEST = 64  # tokens to which a row may be shortened
COMPARED = 20_000_000  # elements of a gradient


class ModelProbe:
    """Training steps of the model of a run, within :meth:`ConfiguredRun.with_model`.

    Neither module nor trainer is changed.
    """

    def __init__(self, run: ConfiguredRun) -> None:
        self.run = run
        self.trainer = run.trainer
        self.module = run.module
        self.causal_lm = run.module.causal_lm
        required = self.module.regularizers.requirements
        self._reference = Reference(self.module.reference.source, required)
        if required.reference:
            # `fit` also scores the whole corpus with it, which would take too long here.
            self._reference.build(self.module)

    @property
    def regularizers(self) -> dict[str, Regularizer]:
        """Regularizers of the run, by name."""
        configured = self.module.regularizers
        return dict(zip(configured.names, configured.ordered, strict=True))

    @cached_property
    def batch(self) -> Batch:
        """Batch of training blocks on the device, with entropies under the current model."""
        batch = self.rows("train")
        entropy = self.score(batch).entropy
        if self.module.regularizers.requirements.holdout_neighbors is not None:
            # Measuring gains takes passes over the corpus; any distinct values show the effect.
            batch = {**batch, "holdout_gain": made_up_gains(batch["document_ids"])}
        return {**batch, "entropy": entropy}

    @cached_property
    def longest(self) -> Batch:
        """Training block with the longest document, with entropies under the current model."""
        blocks = self.run.train_blocks
        chunk = np.diff(blocks.chunk_starts).argmax()
        index = int(np.searchsorted(blocks.block_starts, chunk, side="right")) - 1
        batch = self._collate(blocks, [index])
        return {**batch, "entropy": self.score(batch).entropy}

    def rows(self, split: str, passes: int = 1, each_once: bool = False) -> Batch:
        """Return evenly spaced blocks of a split; for a large model on a CPU, only their starts.

        Args:
            split: Name of the split.
            passes: Factor of the budget of tokens.
            each_once: Whether to return fewer rows, instead of repeating blocks of a small split.
        """
        blocks = self.run.data.blocks(split)
        rows, _ = self.shape(passes)
        rows = min(rows, len(blocks)) if each_once else rows
        return self._collate(blocks, spread(len(blocks), rows), passes)

    def packed_rows(self) -> Batch | None:
        """Return training blocks that contain at least two documents, or None if there are none."""
        blocks = self.run.train_blocks
        packed = np.flatnonzero(np.diff(blocks.block_starts) > 1)
        if not len(packed):
            return None
        count = min(len(packed), self.shape()[0])
        return self._collate(blocks, packed[spread(len(packed), count)].tolist())

    def shape(self, passes: int = 1) -> tuple[int, int]:
        """Return the number of rows of a batch, which is even, and of tokens in a row."""
        tokens = TOKENS
        if self.trainer.strategy.root_device.type == "cpu":
            parameters = sum(each.numel() for each in self.causal_lm.parameters())
            tokens = min(tokens, int(CPU_FLOPS / (2 * parameters)))
        return batch_shape(tokens * passes, self.run.data.block_size)

    def score(self, batch: Batch) -> Outputs:
        """Run the model on clean input in eval mode, in the precision of the run."""
        with self.trainer.precision_plugin.forward_context():
            return score_clean(self.causal_lm, batch)

    def loss(
        self,
        batch: Batch,
        regularizers: Sequence[Regularizer] = (),
        progress: float = 0.0,
        micro_batch: int = 0,
    ) -> tuple[Tensor, Tensor]:
        """Run a training step under some regularizers instead of the configured ones.

        ``progress`` is the share of the training that is done, in [0, 1], and ``micro_batch`` an
        index that changes random draws.

        Returns:
            Loss summed over tokens, with gradient, and the sum of their weights.
        """
        step = round(progress * self.module.total_steps)
        _, loss, weight = self.run_step(batch, regularizers, step, micro_batch)
        return loss, weight

    def run_step(
        self, batch: Batch, regularizers: Sequence[Regularizer], global_step: int, micro_batch: int
    ) -> tuple[Outputs, Tensor, Tensor]:
        """Run a training step as :meth:`loss` does, and return its outputs too."""
        step = replace(
            self.module.describe_step(batch, micro_batch),
            progress=global_step / self.module.total_steps,
            global_step=global_step,
            micro_batch=micro_batch,
        )
        if regularizers:
            step = self._with_corpus(step, batch)
        applied = Regularizers(regularizers)
        # Recorded hooks must see all tokens at once.
        applied.reads_parts = False
        with self.trainer.precision_plugin.train_step_context():
            return self.module.regularized_loss(batch, step, applied)

    def mean_loss(
        self,
        batch: Batch,
        regularizers: Sequence[Regularizer] = (),
        progress: float = 0.0,
        micro_batch: int = 0,
    ) -> float:
        """Return the loss of a training step in nats per token; see :meth:`loss`."""
        loss, weight = self.loss(batch, regularizers, progress, micro_batch)
        return loss.item() / max(weight.item(), 1e-8)

    def gradient(
        self, batches: Sequence[Batch], regularizers: Sequence[Regularizer] = ()
    ) -> Tensor:
        """Return the gradient of the mean loss of micro-batches, in eval mode.

        Returns:
            Its first elements, at most 20 million, fp32 on the CPU.
        """
        # Losses divided by the tokens of a row stay within the range of half precision.
        scale = len(batches) * batches[0]["labels"].shape[1]
        self.module.zero_grad()
        weights = 0.0
        with self.without_dropout():
            for index, batch in enumerate(batches):
                loss, weight = self.loss(batch, regularizers, progress=1.0, micro_batch=index)
                (loss / scale).backward()
                weights += weight.item()
        parts, count = [], 0
        for parameter in self.module.parameters():
            if parameter.grad is not None and count < COMPARED:
                parts.append(parameter.grad.flatten()[: COMPARED - count].float().cpu())
                count += len(parts[-1])
        self.module.zero_grad()
        return torch.cat(parts) * (scale / max(weights, 1e-8))

    @contextmanager
    def without_dropout(self) -> Iterator[None]:
        """Put the model in eval mode, with gradients, while the context lasts."""
        self.causal_lm.eval()
        try:
            yield
        finally:
            self.causal_lm.train()

    @cached_property
    def _corpus_entropy(self) -> Tensor:
        entropy = self.batch["entropy"]
        known = entropy[~entropy.isnan()].float()
        return torch.quantile(known, torch.linspace(0, 1, 1001, device=known.device))

    def _with_corpus(self, step: TrainingStep, batch: Batch) -> TrainingStep:
        """Add what `fit` computes over the corpus before the first step."""
        score = self._reference.score
        selects_by_entropy = self.module.regularizers.requirements.entropy is not None
        return replace(
            step,
            corpus_entropy=self._corpus_entropy if selects_by_entropy else None,
            # Several regularizers may ask for the same outputs.
            reference=cache(partial(score, batch)) if score else None,
        )

    def _collate(self, blocks: PackedBlocks, indices: Sequence[int], passes: int = 1) -> Batch:
        rows = default_collate([blocks[index] for index in indices])
        _, length = self.shape(passes)
        cut = {name: each[:, :length] if each.dim() == 2 else each for name, each in rows.items()}
        batch: Batch = self.trainer.strategy.batch_to_device(cut)
        return batch


def made_up_gains(document_ids: Tensor) -> Tensor:
    """Return a distinct gain for each document of each row; NaN for padding.

    >>> made_up_gains(torch.tensor([[0, 0, 1, -1], [0, 0, 0, 0]]))
    tensor([[0.0000, 0.0000, 0.2500,    nan],
            [1.0000, 1.0000, 1.0000, 1.0000]])
    """
    rows = torch.arange(len(document_ids), device=document_ids.device)[:, None]
    return (rows + document_ids / document_ids.shape[1]).masked_fill(document_ids < 0, torch.nan)


def spread(available: int, wanted: int) -> list[int]:
    """Return evenly spaced indices; they repeat if fewer are available than wanted.

    >>> spread(10, 2), spread(1, 2)
    ([0, 5], [0, 0])
    """
    return [index * available // wanted for index in range(wanted)]


def split_rows(batch: Batch) -> list[Batch]:
    """Split a batch into two halves by rows.

    >>> [part["labels"].tolist() for part in split_rows({"labels": torch.tensor([1, 2, 3, 4])})]
    [[1, 2], [3, 4]]
    """
    half = len(next(iter(batch.values()))) // 2
    parts = slice(0, half), slice(half, None)
    return [{name: values[part] for name, values in batch.items()} for part in parts]


def batch_shape(tokens: int, block_size: int) -> tuple[int, int]:
    """Return an even number of rows, and the number of tokens in a row, for a token budget.

    >>> batch_shape(4096, 512), batch_shape(400, 512), batch_shape(10, 512)
    ((8, 512), (2, 200), (2, 64))
    """
    length = min(block_size, max(SHORTEST, tokens // 2))
    return max(2, min(ROWS, tokens // length) // 2 * 2), length
