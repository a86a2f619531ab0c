"""Real training steps of a model that is set up, from which it does not learn.

B rows in the batch, T tokens in a row.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property, partial

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import default_collate

from lit_entrodrop.commands.doctor.regularizer_probe import Trial, try_each
from lit_entrodrop.commands.doctor.subject import Subject
from lit_entrodrop.data.blocks import PackedBlocks
from lit_entrodrop.model.clean_pass import Batch, score_clean
from lit_entrodrop.training.models import build_frozen_for
from regularizers import Outputs, Regularizer, Regularizers

TOKENS = 4096  # of a batch, at most
ROWS = 16
# Of a forward pass on a CPU, which takes some seconds for them; checks take about 15 such passes.
CPU_FLOPS = 5e10
SHORTEST = 64  # tokens of a row, to which it is cut at most
COMPARED = 20_000_000  # numbers of a gradient


class Live:
    """A model in the state in which `fit` would train it, and some of its text.

    Args:
        subject: within :meth:`Subject.examining`.
    """

    def __init__(self, subject: Subject) -> None:
        self.subject = subject
        self.trainer = subject.trainer
        self.module = subject.module
        self.causal_lm = subject.module.causal_lm
        if self.module.regularizers.requirements.reference:
            # `fit` builds it with the entropies of the whole corpus, which take too long here.
            frozen = build_frozen_for(
                self.trainer,
                subject.data,
                self.module.lm,
                self.module.reference,
                self.module.tokenizer,
            )
            required = self.module.regularizers.requirements
            self.module._score_frozen = partial(score_clean, frozen, required=required)

    @cached_property
    def batch(self) -> Batch:
        """Some training blocks on the device, with entropies by the model as it is."""
        batch = self.rows("train")
        entropy = self.score(batch).entropy
        known = entropy[~entropy.isnan()].float()
        places = torch.linspace(0, 1, 1001, device=known.device)
        self.module.entropies.corpus_quantiles = torch.quantile(known, places)
        if self.module.regularizers.requirements.holdout_neighbours is not None:
            # To measure them takes passes over the corpus: any that differ show what they do.
            batch = {**batch, "holdout_gain": made_up_gains(batch["document_ids"])}
        return {**batch, "entropy": entropy}

    @cached_property
    def longest(self) -> Batch:
        """The training block that holds the longest document, with entropies likewise."""
        blocks = self.subject.blocks("train")
        assert blocks is not None, "there is always something to train on"
        chunk = np.diff(blocks.chunk_starts).argmax()
        index = int(np.searchsorted(blocks.block_starts, chunk, side="right")) - 1
        batch = self._collate(blocks, [index])
        return {**batch, "entropy": self.score(batch).entropy}

    @cached_property
    def trials(self) -> list[Trial]:
        """What each regularizer that is not idle does in a training step."""
        return try_each(self)

    def rows(self, split: str, passes: int = 1, each_once: bool = False) -> Batch:
        """Return some evenly spaced blocks of a split, or of a large model on a CPU the starts.

        Args:
            split: of the data.
            passes: for how many batches of checks it may take time.
            each_once: return fewer rows where the split has fewer blocks, in place of some again.
        """
        blocks = self.subject.blocks(split)
        assert blocks is not None, "the caller knows the split"
        rows, _ = self.shape(passes)
        rows = min(rows, len(blocks)) if each_once else rows
        return self._collate(blocks, spread(len(blocks), rows), passes)

    def packed_rows(self) -> Batch | None:
        """Return some training blocks that hold two documents or more, if there are any."""
        blocks = self.subject.blocks("train")
        assert blocks is not None, "there is always something to train on"
        packed = np.flatnonzero(np.diff(blocks.block_starts) > 1)
        if not len(packed):
            return None
        count = min(len(packed), self.shape()[0])
        return self._collate(blocks, packed[spread(len(packed), count)].tolist())

    def shape(self, passes: int = 1) -> tuple[int, int]:
        """Return of how many rows and tokens a batch is: an even number of rows."""
        tokens = TOKENS
        if self.trainer.strategy.root_device.type == "cpu":
            parameters = sum(each.numel() for each in self.causal_lm.parameters())
            tokens = min(tokens, int(CPU_FLOPS / (2 * parameters)))
        return batch_shape(tokens * passes, self.subject.data.block_size)

    def _collate(self, blocks: PackedBlocks, indices: Sequence[int], passes: int = 1) -> Batch:
        rows = default_collate([blocks[index] for index in indices])
        _, length = self.shape(passes)
        cut = {name: each[:, :length] if each.dim() == 2 else each for name, each in rows.items()}
        batch: Batch = self.trainer.strategy.batch_to_device(cut)
        return batch

    def score(self, batch: Batch) -> Outputs:
        """Run the model on clean input in eval mode, in the precision of the run."""
        with self.trainer.precision_plugin.forward_context():
            return score_clean(self.causal_lm, batch)

    def loss(
        self,
        batch: Batch,
        regularizers: Sequence[Regularizer] = (),
        at: float = 0.0,
        micro_batch: int = 0,
    ) -> Tensor:
        """Run the module's own training step, and return its loss in units of T, with gradient.

        Args:
            batch: of any number of rows.
            regularizers: in place of all.
            at: progress of the training at which they find themselves, in [0, 1].
            micro_batch: index of the batch, by which random draws differ.
        """
        self.trainer.at_step = round(at * self.module.total_steps)
        with (
            self._micro_batches(max(micro_batch + 1, self.trainer.accumulate_grad_batches)),
            self._only(regularizers),
            self.trainer.precision_plugin.train_step_context(),
        ):
            return self.module.training_step(batch, micro_batch)

    def gradient(
        self, batches: Sequence[Batch], regularizers: Sequence[Regularizer] = ()
    ) -> Tensor:
        """Accumulate the gradient of some micro-batches as `fit` does, in eval mode.

        Args:
            batches: micro-batches of one optimizer step.
            regularizers: in place of all.

        Returns:
            As many numbers of it as are worth comparing, fp32 on the CPU.
        """
        self.module.step_weight.zero_()
        self.module.zero_grad()
        self.causal_lm.eval()
        try:
            with self._micro_batches(len(batches)):
                for index, batch in enumerate(batches):
                    loss = self.loss(batch, regularizers, at=1.0, micro_batch=index)
                    (loss / len(batches)).backward()
                self.module.on_before_optimizer_step(self.trainer.optimizers[0])
            return self._compared_gradient()
        finally:
            self.causal_lm.train()
            self.module.zero_grad()

    def _compared_gradient(self) -> Tensor:
        parts, count = [], 0
        for parameter in self.module.parameters():
            if parameter.grad is not None and count < COMPARED:
                parts.append(parameter.grad.flatten()[: COMPARED - count].float().cpu())
                count += len(parts[-1])
        return torch.cat(parts)

    @contextmanager
    def _micro_batches(self, count: int) -> Iterator[None]:
        configured = self.trainer.accumulate_grad_batches
        self.trainer.accumulate_grad_batches = count
        try:
            yield
        finally:
            self.trainer.accumulate_grad_batches = configured

    @contextmanager
    def _only(self, regularizers: Sequence[Regularizer]) -> Iterator[None]:
        configured = self.module.regularizers
        self.module.regularizers = Regularizers(regularizers)
        try:
            yield
        finally:
            self.module.regularizers = configured
            self.trainer.at_step = 0


def made_up_gains(document_ids: Tensor) -> Tensor:
    """Return another gain for each document of each row; NaN for padding.

    >>> made_up_gains(torch.tensor([[0, 0, 1, -1], [0, 0, 0, 0]]))
    tensor([[0.0000, 0.0000, 0.2500,    nan],
            [1.0000, 1.0000, 1.0000, 1.0000]])
    """
    rows = torch.arange(len(document_ids), device=document_ids.device)[:, None]
    return (rows + document_ids / document_ids.shape[1]).masked_fill(document_ids < 0, torch.nan)


def spread(available: int, wanted: int) -> list[int]:
    """Return evenly spaced indices, again from the first where there are too few.

    >>> spread(10, 2), spread(1, 2)
    ([0, 5], [0, 0])
    """
    if available < wanted:
        return [index % available for index in range(wanted)]
    return [index * available // wanted for index in range(wanted)]


def split_rows(batch: Batch) -> list[Batch]:
    """Cut a batch into two of half the rows.

    >>> [part["labels"].tolist() for part in split_rows({"labels": torch.tensor([1, 2, 3, 4])})]
    [[1, 2], [3, 4]]
    """
    half = len(next(iter(batch.values()))) // 2
    return [
        {name: values[part] for name, values in batch.items()}
        for part in (slice(0, half), slice(half, None))
    ]


def batch_shape(tokens: int, block_size: int) -> tuple[int, int]:
    """Return an even number of rows, and tokens of a row, of a batch of some tokens.

    >>> batch_shape(4096, 512), batch_shape(400, 512), batch_shape(10, 512)
    ((8, 512), (2, 200), (2, 64))
    """
    length = min(block_size, max(SHORTEST, tokens // 2))
    return max(2, min(ROWS, tokens // length) // 2 * 2), length
