"""The part of the LightningDataModule that loads training batches, resumable within an epoch."""

from collections.abc import Callable, Mapping
from functools import cached_property
from typing import Any

from lightning.pytorch.trainer.states import TrainerFn
from torch import Tensor
from torch.utils.data import DataLoader

from lit_entrodrop.data.loading.mixture import Mixture
from lit_entrodrop.data.loading.repacking import Repacking
from lit_entrodrop.data.loading.training_batches import TrainingBatches, check_same_batches
from lit_entrodrop.data.mixing import Replay
from lit_entrodrop.data.orders import BlockOrder
from lit_entrodrop.data.packed_datamodule import PackedDataModule
from lit_entrodrop.model.clean_pass import Batch


class TrainingDataModule(PackedDataModule):
    """Load the training blocks of each epoch, in order.

    Subclasses set the attributes below, and have the hyperparameters ``seed``, ``packing`` and
    ``repack``.
    """

    order: BlockOrder
    #: Weights of the sources of the corpus, by name; empty for one source.
    weights: Mapping[str, float]
    #: Settings of replay; None without.
    replay: Replay | None

    def __init__(self) -> None:
        super().__init__()
        self._training: TrainingBatches | None = None
        self._restored: dict[str, Any] = {}

    @cached_property
    def mixture(self) -> Mixture:
        """Which blocks of the training text and of replay an epoch reads."""
        settings = self.weights, self.replay, self.hparams["seed"]
        return Mixture(self.splits, self.order, *settings)

    @cached_property
    def repacking(self) -> Repacking | None:
        """The training blocks of each epoch, if each epoch has its own."""
        if self.hparams["repack"] == "never":
            return None
        return Repacking(self.blocks("train"), self.hparams["seed"], self.hparams["packing"])

    def corpus_readings(self, count_epochs: Callable[[int], int] | None = None) -> int:
        """Count the blocks of the corpus that an epoch reads over all ranks.

        If epochs differ, it is their maximum; the others read blocks of padding too.

        Args:
            count_epochs: Function from the blocks that an epoch reads to the number of epochs; by
                default that of the trainer.
        """
        if self.repacking is None:
            return self.num_blocks("train")
        replay, count = self.mixture.replay_readings, count_epochs or self._count_epochs
        return self.repacking.most_blocks(lambda corpus: count(corpus + replay))

    def readings_per_epoch(self, count_epochs: Callable[[int], int] | None = None) -> int:
        """Count the blocks that an epoch reads over all ranks, replay and padding included."""
        return self.corpus_readings(count_epochs) + self.mixture.replay_readings

    def train_dataloader(self) -> DataLoader[Batch]:
        """Load the training blocks in the order of `order`, mixed with replay."""
        repacked = self.repacking, self.corpus_readings()
        self._training = TrainingBatches(self.mixture, self._count_epochs, self.batching, *repacked)
        self._training.load_state_dict(self._restored)
        self._restored = {}
        return self._training.loader

    def record_losses(self, block_id: Tensor, nll: Tensor, valid: Tensor) -> None:
        """Record the losses of a training batch for `order`, as `BlockLosses.record` does."""
        if self._training:
            self._training.order.record(block_id, nll, valid)

    def state_dict(self) -> dict[str, Any]:
        """Return the position of the training loader for a checkpoint; empty before training."""
        return self._training.state_dict() if self._training else {}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Resume training at the position of a checkpoint.

        Lightning restores loaders too, but not after `estimated_stepping_batches` was read.
        """
        if self.trainer is None or self.trainer.state.fn == TrainerFn.FITTING:
            check_same_batches(state_dict, self.batching, self.mixture, self.hparams["repack"])
        if self._training:
            self._training.load_state_dict(state_dict)
        else:
            self._restored = state_dict
