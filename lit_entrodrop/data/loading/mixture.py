"""The training text of a run: the blocks that an epoch reads, and their order."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from torch import Tensor
from torch.utils.data import Dataset

from lit_entrodrop.data.loading._weighted_order import WeightedOrder
from lit_entrodrop.data.loading.mixed_blocks import MixedBlocks, WithReplay
from lit_entrodrop.data.loading.readings import cyclic_readings, interleave
from lit_entrodrop.data.mixing import DOMAIN, REPLAY, Replay
from lit_entrodrop.data.orders import BlockOrder
from lit_entrodrop.data.packing.blocks import PackedBlocks
from lit_entrodrop.data.packing.chunking import Integers
from lit_entrodrop.data.preparing.packed_splits import PackedSplits

REPLAY_STREAM = 2**32  # no source of a corpus has this number


@dataclass(frozen=True, eq=False)
class Mixture:
    """Sources of the training text: one or more of the corpus, then replay, if any.

    Attributes:
        splits: Packed splits, with "train", and "replay" if there is any.
        given_order: Order of the blocks of a corpus without weights.
        weights: Weights of the sources of the corpus, by name; empty for one source.
        settings: Settings of replay; null for none.
        seed: Seed of the order.
    """

    splits: PackedSplits
    given_order: BlockOrder
    weights: Mapping[str, float]
    settings: Replay | None
    seed: int

    def __repr__(self) -> str:
        """Describe replay, by which a checkpoint identifies it."""
        if self.replay is None:
            return "no replay"
        return f"{self.replay_readings} blocks per epoch of the replay {self.replay.fingerprint}"

    @property
    def train(self) -> PackedBlocks:
        """Blocks of the corpus."""
        return self.splits["train"].blocks

    @property
    def replay(self) -> PackedBlocks | None:
        """Blocks of replay, if any."""
        return self.splits[REPLAY].blocks if self.settings else None

    @property
    def names(self) -> list[str]:
        """Names of the sources, as rows number them; empty if there is one source."""
        if self.settings is None:
            return list(self.weights)
        return [*(self.weights or [DOMAIN]), REPLAY]

    @property
    def validation_metrics(self) -> list[str]:
        """Names of the validation losses by source, if the corpus has weights."""
        by_source = "validation" in self.splits and self.splits["validation"].source_blocks
        return [f"val/{name}_loss" for name in self.weights] if by_source else []

    @cached_property
    def order(self) -> BlockOrder:
        """Order of the blocks of the corpus."""
        if not self.weights:
            return self.given_order
        return WeightedOrder(list(self.splits["train"].source_blocks), self.weights)

    @cached_property
    def sizes(self) -> list[int]:
        """Number of blocks of each source."""
        replay = [] if self.replay is None else [len(self.replay)]
        return [*(self.splits["train"].source_blocks or [len(self.train)]), *replay]

    @cached_property
    def readings(self) -> list[int]:
        """Number of blocks of each source that an epoch reads, without replay."""
        order = self.order
        return order.counts if isinstance(order, WeightedOrder) else [len(self.train)]

    @cached_property
    def replay_readings(self) -> int:
        """Number of blocks of replay that an epoch reads, at least one; 0 without replay."""
        if self.settings is None or self.replay is None:
            return 0
        firsts = self.train.block_starts[np.cumsum([0, *self.sizes])[: len(self.readings)]]
        labels = np.add.reduceat(self.train.labels_per_chunk, firsts) / self.sizes[:-1]
        replay, share = self.replay.labels_per_chunk.sum() / len(self.replay), self.settings.share
        count = share / (1 - share) * float(labels @ self.readings) / float(replay)
        return max(1, round(count))

    def rows(self, num_blocks: int, is_repacked: bool) -> Dataset[dict[str, Tensor]]:
        """Return the dataset of all blocks.

        Args:
            num_blocks: Number of blocks of the corpus; those of replay are numbered after them.
            is_repacked: Whether rows of the corpus have a `token_index`.
        """
        if not self.names:
            return self.train
        rows = MixedBlocks(self.train, self.splits["train"].source_blocks)
        if self.settings is None or self.replay is None:
            return rows
        return WithReplay(rows, self.replay, num_blocks, self.settings.regularize, is_repacked)

    def arrange(
        self, order: Callable[[int], Integers], num_blocks: int
    ) -> Callable[[int], Integers]:
        """Add replay to the order of the blocks of the corpus.

        Args:
            order: Function from an epoch to block numbers.
            num_blocks: Number of blocks of the corpus; those of replay are numbered after them.

        Returns:
            The function from an epoch to all block numbers. Readings of replay continue from epoch
            to epoch in an endless sequence of permutations.
        """
        if self.replay is None:
            return order
        size, count = len(self.replay), self.replay_readings

        def arranged(epoch: int) -> Integers:
            seed = [self.seed, REPLAY_STREAM]
            replay = num_blocks + cyclic_readings(size, epoch * count, count, seed)
            return interleave([order(epoch), replay])

        return arranged

    def describe(self) -> str:
        """Describe how many blocks of each source an epoch reads; empty for one source."""
        rows = zip(self.names, [*self.readings, self.replay_readings], self.sizes, strict=False)
        parts = [f"{name} {count:,} of {size:,}" for name, count, size in rows]
        return f"blocks read in an epoch: {', '.join(parts)}" if parts else ""
