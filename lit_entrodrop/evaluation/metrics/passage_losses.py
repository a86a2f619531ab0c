"""Loss and entropy of each token of a few passages."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torchmetrics import Metric

from lit_entrodrop.data.packing.blocks import PackedBlocks


class Passage(NamedTuple):
    """Position of a passage in a split: the tokens from start to stop of a block."""

    block: int
    start: int
    stop: int


class PassageLosses(Metric):
    """Loss and entropy, in nats, of each token of P passages of at most T tokens.

    Args:
        passages: Positions of the passages.

    >>> losses = PassageLosses([Passage(block=7, start=1, stop=3)])
    >>> one = torch.ones(1, 4)
    >>> losses.update(3 * one, one, one.bool(), block_id=torch.tensor([7]))
    >>> losses.compute()[0].tolist()
    [[3.0, 3.0]]
    """

    full_state_update = False
    values: Tensor
    seen: Tensor

    def __init__(self, passages: Sequence[Passage]) -> None:
        super().__init__()
        self.passages = list(passages)
        longest = max((passage.stop - passage.start for passage in passages), default=0)
        shape = (len(self.passages), longest)
        self.add_state("values", default=torch.zeros(2, *shape), dist_reduce_fx="sum")
        self.add_state("seen", default=torch.zeros(shape).long(), dist_reduce_fx="sum")

    def update(self, nll: Tensor, entropy: Tensor, valid: Tensor, block_id: Tensor) -> None:
        """Record the passages that are in a batch.

        Args:
            nll: Loss of each token, ``[B, T]`` nats.
            entropy: Entropy of the same predictions, ``[B, T]`` nats.
            valid: Whether each token counts, ``[B, T]`` bool.
            block_id: Index of each block in the split, ``[B]`` int64.
        """
        rows = {block: row for row, block in enumerate(block_id.tolist())}
        for number, (block, start, stop) in enumerate(self.passages):
            if (row := rows.get(block)) is None:
                continue
            place, counted = slice(0, stop - start), valid[row, start:stop]
            for kind, values in enumerate((nll, entropy)):
                # A product with the mask would keep NaN.
                kept = values[row, start:stop].float().masked_fill(~counted, 0.0)
                self.values[kind, number, place] += kept
            self.seen[number, place] += counted

    def compute(self) -> tuple[Tensor, Tensor]:
        """Return loss and entropy, ``[P, T]`` fp32 each; NaN if a token does not count."""
        nll, entropy = self.values.masked_fill(self.seen == 0, torch.nan)
        return nll, entropy


def choose_passages(blocks: PackedBlocks, count: int, longest: int, seed: int) -> list[Passage]:
    """Choose at most ``count`` random documents, among the longer half of all documents.

    A passage is the start of a document, of at most ``longest`` tokens.
    """
    lengths = np.diff(blocks.chunk_starts)
    long_enough = np.flatnonzero(lengths >= np.median(lengths))
    random = np.random.default_rng(seed)
    chosen = random.choice(long_enough, min(count, len(long_enough)), replace=False)
    passages = []
    for chunk in np.sort(chosen):
        block = int(np.searchsorted(blocks.block_starts, chunk, side="right")) - 1
        start = int(blocks.chunk_starts[chunk] - blocks.chunk_starts[blocks.block_starts[block]])
        passages.append(Passage(block, start, start + min(int(lengths[chunk]), longest)))
    return passages
