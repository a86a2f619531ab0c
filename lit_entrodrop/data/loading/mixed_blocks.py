"""Rows of several sources, as one dataset."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from lit_entrodrop.data.packing.blocks import PADDING_BLOCK, Block, PackedBlocks


class MixedBlocks(Dataset[dict[str, Tensor]]):
    """Rows of `PackedBlocks`, with the number of their source in `source`.

    Args:
        blocks: The blocks.
        num_blocks: Number of consecutive blocks of each source; empty for one source.
    """

    def __init__(self, blocks: PackedBlocks, num_blocks: Sequence[int] = ()) -> None:
        self.blocks = blocks
        self.ends = np.cumsum(num_blocks or [len(blocks)])

    def __len__(self) -> int:
        return len(self.blocks)

    def __getitem__(self, index: int | Block) -> dict[str, Tensor]:
        """Build one row, as `PackedBlocks` does; a `Block` is of one source."""
        number = 0 if isinstance(index, Block) else index
        source = np.searchsorted(self.ends, number, side="right")
        return self.blocks[index] | {"source": torch.tensor(int(source))}


class WithReplay(Dataset[dict[str, Tensor]]):
    """Rows of the training text, and rows of replay after them.

    `unregularized` says whether regularizers skip a row. Rows of replay have the `block_id` and the
    `token_index` of padding, as entropies and losses are stored for the training text alone.

    Args:
        train: Rows of the training text.
        replay: Blocks of replay.
        first: Number of the first block of replay.
        regularize: Whether regularizers apply to replay.
        is_repacked: Whether rows have a `token_index`.
    """

    def __init__(
        self,
        train: MixedBlocks,
        replay: PackedBlocks,
        first: int,
        regularize: bool = False,
        is_repacked: bool = False,
    ) -> None:
        self.train, self.replay, self.first = train, replay, first
        self.regularize, self.is_repacked = regularize, is_repacked

    def __len__(self) -> int:
        return self.first + len(self.replay)

    def __getitem__(self, index: int | Block) -> dict[str, Tensor]:
        """Build one row; -1 gives a block of padding only."""
        if isinstance(index, Block) or index < self.first:
            return self.train[index] | {"unregularized": torch.tensor(False)}
        row = self._replay_row(index - self.first)
        return row | {"unregularized": torch.tensor(not self.regularize)}

    def _replay_row(self, number: int) -> dict[str, Tensor]:
        row, none = self.replay[number], torch.tensor(PADDING_BLOCK)
        row |= {"block_id": none, "source": torch.tensor(len(self.train.ends))}
        return row | ({"token_index": none.expand_as(row["labels"])} if self.is_repacked else {})
