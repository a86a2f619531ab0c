"""Loss and entropy of each token of a few passages, to be read token by token."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torchmetrics import Metric

from lit_entrodrop.data.blocks import PackedBlocks


class Passage(NamedTuple):
    """Where a passage lies.

    Attributes:
        block: number of its block within the split.
        start: place of its first token within the block.
        stop: place after its last token.
    """

    block: int
    start: int
    stop: int


class PassageScores(Metric):
    """Loss and entropy, in nats, of each token of P passages of at most T tokens.

    Args:
        passages: where they lie.

    >>> scores = PassageScores([Passage(block=7, start=1, stop=3)])
    >>> one = torch.ones(1, 4)
    >>> scores.update(3 * one, one, one.bool(), block_id=torch.tensor([7]))
    >>> scores.compute()[0].tolist()
    [[3.0, 3.0]]
    """

    full_state_update = False
    scores: Tensor
    seen: Tensor

    def __init__(self, passages: Sequence[Passage]) -> None:
        super().__init__()
        self.passages = list(passages)
        longest = max((passage.stop - passage.start for passage in passages), default=0)
        shape = (len(self.passages), longest)
        self.add_state("scores", default=torch.zeros(2, *shape), dist_reduce_fx="sum")
        self.add_state("seen", default=torch.zeros(shape).long(), dist_reduce_fx="sum")

    def update(self, nll: Tensor, entropy: Tensor, valid: Tensor, block_id: Tensor) -> None:
        """Look for the passages in a batch.

        Args:
            nll: ``[B, T]`` nats.
            entropy: ``[B, T]`` nats, of the same predictions.
            valid: ``[B, T]`` bool, tokens that count.
            block_id: ``[B]`` int64, numbers of the blocks.
        """
        rows = {block: row for row, block in enumerate(block_id.tolist())}
        for number, (block, start, stop) in enumerate(self.passages):
            if (row := rows.get(block)) is None:
                continue
            place, counted = slice(0, stop - start), valid[row, start:stop]
            for kind, values in enumerate((nll, entropy)):
                # NaN times zero would stay.
                kept = values[row, start:stop].float().masked_fill(~counted, 0.0)
                self.scores[kind, number, place] += kept
            self.seen[number, place] += counted

    def compute(self) -> tuple[Tensor, Tensor]:
        """Return loss and entropy, ``[P, T]`` fp32 each; NaN where no token counts."""
        nll, entropy = self.scores.masked_fill(self.seen == 0, torch.nan)
        return nll, entropy


def choose_passages(blocks: PackedBlocks, count: int, longest: int, seed: int) -> list[Passage]:
    """Choose the starts of some documents at random, the longer half of them.

    Args:
        blocks: of the split.
        count: how many, at most.
        longest: tokens of a passage, at most.
        seed: the same gives the same passages.
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
