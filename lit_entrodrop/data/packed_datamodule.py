"""The LightningDataModule of packed splits: their blocks, their loaders and their length."""

from abc import abstractmethod

from lightning import LightningDataModule
from torch.utils.data import DataLoader

from lit_entrodrop.data.loading.loaders import Batching, ordered_dataloader
from lit_entrodrop.data.loading.mixed_blocks import MixedBlocks
from lit_entrodrop.data.packing.blocks import PackedBlocks
from lit_entrodrop.data.preparing.packed_splits import PackedSplits
from lit_entrodrop.model.clean_pass import Batch
from lit_entrodrop.runtime.ranks import data_rank
from lit_entrodrop.runtime.steps import epochs_begun, limited_batches, steps_per_epoch


class PackedDataModule(LightningDataModule):
    """Load packed splits in order, and count blocks, batches and steps under the trainer.

    Subclasses set the attribute below and the splits, have the hyperparameters ``batch_size``,
    ``num_workers``, ``packing``, ``repack`` and ``seed``, and load the training blocks.
    """

    predict_split: str

    def __init__(self) -> None:
        super().__init__()
        self._splits: PackedSplits | None = None

    @property
    def splits(self) -> PackedSplits:
        """The packed splits: of the corpus, the evaluation sets, "clean_train" and "forgetting"."""
        if self._splits is None:
            raise RuntimeError("the data is not set up: call setup() first.")
        return self._splits

    @property
    def held_out(self) -> list[str]:
        """Names of "validation" and of the named evaluation sets, as far as there are any."""
        return self.splits.held_out

    @property
    def evaluated(self) -> list[str]:
        """Names of the splits on which a model is evaluated during training, in order."""
        return self.splits.evaluated

    def blocks(self, split: str) -> PackedBlocks:
        """Return the blocks of a split; a ValueError if the split was not requested."""
        return self.splits[split].blocks

    def fingerprint(self, split: str) -> str:
        """Hash the blocks of a split, 32 hexadecimal digits, equal for equal blocks."""
        return self.blocks(split).fingerprint

    def num_blocks(self, split: str) -> int:
        """Count the blocks of a split over all ranks; 0 for a split that was not requested."""
        return self.splits.num_blocks(split)

    @property
    def batching(self) -> Batching:
        """How blocks are divided into batches on this rank."""
        batch_size, num_workers = self.hparams["batch_size"], self.hparams["num_workers"]
        return Batching(batch_size, num_workers, *data_rank(self.trainer)[:2])

    @abstractmethod
    def readings_per_epoch(self) -> int:
        """Count the blocks that an epoch of training reads over all ranks."""

    def batches_per_epoch(self) -> int:
        """Count the training batches of one rank in one epoch."""
        return self.batching.count(self.readings_per_epoch())

    def steps_per_epoch(self, readings: int | None = None) -> int:
        """Count the optimizer steps of one epoch under the trainer.

        Args:
            readings: Number of blocks that an epoch reads, if not `readings_per_epoch`.
        """
        readings = self.readings_per_epoch() if readings is None else readings
        assert self.trainer is not None, "the trainer attaches its data module"
        accumulate, limit = self.trainer.accumulate_grad_batches, self.trainer.limit_train_batches
        return steps_per_epoch(self.batching.count(readings), accumulate, limit)

    def evaluated_blocks(self, split: str) -> int:
        """Count the blocks, from the first, that evaluation reads under the trainer's limits."""
        count = self.num_blocks(split)
        if self.trainer is None:
            return count
        test, validation = self.trainer.limit_test_batches, self.trainer.limit_val_batches
        limit = test if split == "test" else validation
        batches = limited_batches(self.batching.count(count), limit)
        return min(count, batches * self.batching.blocks_per_batch)

    def val_dataloader(self) -> list[DataLoader[Batch]]:
        """Load the blocks of each split in `evaluated`, in order."""
        return [self.ordered_dataloader(split) for split in self.evaluated]

    def test_dataloader(self) -> DataLoader[Batch]:
        """Load the test blocks in order."""
        return self.ordered_dataloader("test")

    def predict_dataloader(self) -> DataLoader[Batch]:
        """Load the blocks of `predict_split` in order."""
        return self.ordered_dataloader(self.predict_split)

    def ordered_dataloader(self, split: str) -> DataLoader[Batch]:
        """Load the blocks of any split in order, each once over all ranks."""
        blocks, sources = self.blocks(split), self.splits[split].source_blocks
        return ordered_dataloader(
            MixedBlocks(blocks, sources) if sources else blocks, self.batching
        )

    def _count_epochs(self, readings: int | None = None) -> int:
        if self.trainer is None:
            return 0
        bounds = self.trainer.max_epochs, self.trainer.max_steps
        return epochs_begun(self.steps_per_epoch(readings), *bounds)
