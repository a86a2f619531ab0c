"""Batches to show: those of a training step, or blocks of another split."""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Any

from torch.utils.data import default_collate

from lit_entrodrop.commands.doctor.configured_run import ConfiguredRun
from lit_entrodrop.commands.doctor.model_probe import spread
from lit_entrodrop.data.loading.mixed_blocks import MixedBlocks, WithReplay
from lit_entrodrop.data.mixing import REPLAY
from lit_entrodrop.data.packing.blocks import Block
from lit_entrodrop.model.clean_pass import Batch
from lit_entrodrop.runtime.steps import total_steps


@dataclass(frozen=True)
class Place:
    """Place of a micro-batch in training on one device; all numbers count from 0."""

    step: int
    steps: int
    epoch: int
    micro_batch: int

    @property
    def progress(self) -> float:
        """Share of the optimizer steps that are done before this one, in [0, 1)."""
        return self.step / self.steps


@dataclass(frozen=True)
class SelectedBatch:
    """A batch to show.

    Args:
        batch: The batch, on the CPU.
        blocks: Its blocks, and the split of each.
        place: Its place in training; None for a batch of another split.
    """

    batch: Batch
    blocks: list[tuple[str, Block]]
    place: Place | None = None


def training_batches(run: ConfiguredRun, progress: float, blocks: int) -> Iterator[SelectedBatch]:
    """Yield the batches that `fit` reads at some progress, until they have enough blocks.

    The epoch may end before.

    Args:
        run: Run whose text has been read.
        progress: Share of the training that is done, in [0, 1]; 1 is the last step.
        blocks: Number of blocks.
    """
    data, trainer = run.data, run.trainer
    data.trainer = trainer
    per_epoch, accumulate = data.steps_per_epoch(), trainer.accumulate_grad_batches
    steps = total_steps(per_epoch, trainer.max_epochs, trainer.max_steps)
    epoch, step = divmod(min(round(progress * steps), steps - 1), per_epoch)
    loader = data.train_dataloader()
    loader.sampler.set_epoch(epoch)  # type: ignore[attr-defined]
    assert loader.batch_sampler is not None, "the loader has a batch size"
    first = step * accumulate
    for number, indices in enumerate(islice(loader.batch_sampler, first, None), first):
        done, micro_batch = divmod(number, accumulate)
        yield SelectedBatch(
            loader.collate_fn([loader.dataset[index] for index in indices]),
            [_block_of(loader.dataset, index) for index in indices],
            Place(epoch * per_epoch + done, steps, epoch, micro_batch),
        )
        blocks -= len(indices)
        if blocks <= 0:
            return


def evaluation_batch(run: ConfiguredRun, split: str, blocks: int) -> SelectedBatch:
    """Return evenly spaced blocks of a split."""
    found = run.data.blocks(split)
    chosen = spread(len(found), min(blocks, len(found)))
    batch = default_collate([found[index] for index in chosen])
    return SelectedBatch(batch, [(split, found.block(index)) for index in chosen])


def _block_of(rows: Any, index: int | Block) -> tuple[str, Block]:
    """Return the split and the chunks of a row."""
    if isinstance(rows, WithReplay):
        if isinstance(index, int) and index >= rows.first:
            return REPLAY, rows.replay.block(index - rows.first)
        rows = rows.train
    blocks = rows.blocks if isinstance(rows, MixedBlocks) else rows
    return "train", index if isinstance(index, Block) else blocks.block(index)
