"""Learn-Focus-Review: blocks of high loss are revisited, and all are reviewed from time to time."""

from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray

from lit_entrodrop.data.orders.base import BlockOrder, Epoch
from lit_entrodrop.data.orders.shuffled import Shuffled
from lit_entrodrop.data.settings import check_at_least

Phase = Literal["learn", "focus", "review"]


def phase_of(number: int, learn: int, focus: int, review: int) -> Phase:
    """Return the phase of an epoch: learning comes once, then focus and review alternate.

    Args:
        number: The epoch, from 0.
        learn: Epochs of learning.
        focus: Epochs of focus in a row.
        review: Epochs of review in a row.

    >>> [phase_of(number, learn=1, focus=2, review=1) for number in range(5)]
    ['learn', 'focus', 'focus', 'review', 'focus']
    """
    if number < learn:
        return "learn"
    return "focus" if (number - learn) % (focus + review) < focus else "review"


def focused_passes(ranked: NDArray[np.int64], share: float) -> list[NDArray[np.int64]]:
    """Share out the readings of an epoch of focus among the hardest blocks.

    Args:
        ranked: [N] all blocks, the one of the highest loss first.
        share: Share of them that is read, in (0, 1].

    Returns:
        Passes with N blocks in all: the share · N hardest (rounded, but at least one) as often as
        they fit, then the hardest of these once more.

    >>> [blocks.tolist() for blocks in focused_passes(np.array([3, 0, 4, 2, 1]), share=0.4)]
    [[3, 0], [3, 0], [3]]
    """
    hardest = ranked[: max(1, round(share * len(ranked)))]
    return [hardest[: len(ranked) - start] for start in range(0, len(ranked), len(hardest))]


class LearnFocusReview(BlockOrder):
    """Read blocks of high loss more often, and all of them from time to time.

    The first `learn` epochs read every block once. Then `focus` epochs, which read only the share
    of hardest blocks, and `review` epochs, which read every block once, take turns until the end.
    With r_i = 0, 1, … the rank of block i when those of the highest loss come first, an epoch of
    focus reads it as often as:

        n_i = ⌊N / K⌋ + 1[r_i < N mod K] if r_i < K, else 0,    K = max(1, round(share · N))

    The loss of a block is its mean in training when it was last read before the epoch: it comes
    from the ordinary, regularized pass and costs no further one. A block that was never read counts
    as the hardest; ties are broken at random. Passes over the hardest blocks are shuffled one by
    one, so that two readings of a block lie apart; `share: 1` is `Shuffled`, bit for bit.

    The paper pretrains, and drops clusters of blocks of low perplexity, which it brings back for
    review. Here the easiest blocks are dropped at a quantile of the loss, which has the order of
    the perplexity; phases are whole epochs, which keep their N readings; and the defaults are ours.

    Source:
        Prakriya et al. 2025, Accelerating Large Language Model Pretraining via LFR Pedagogy,
        arXiv 2409.06131.

    Args:
        learn: Epochs at the start that read every block, at least 1.
        focus: Epochs in a row that read the hardest blocks only, at least 1.
        review: Epochs in a row after these that read every block again, at least 1.
        share: Share of the blocks, those of the highest loss, that an epoch of focus reads, in
            (0, 1].

    Raises:
        ValueError: If a setting is out of range.

    >>> losses = np.array([0.1, 2.0, 0.3, 1.0], np.float32)
    >>> LearnFocusReview(share=0.5).blocks(Epoch(1, 4, seed=0, losses=losses))
    array([3, 1, 3, 1])
    """

    reads_losses = True
    repeats_blocks = True

    def __init__(self, learn: int = 1, focus: int = 1, review: int = 1, share: float = 0.5) -> None:
        check_at_least(1, learn=learn, focus=focus, review=review)
        if not 0 < share <= 1:
            raise ValueError(
                "LearnFocusReview share: expected the share of blocks that is read in epochs of "
                f"focus, above 0 and at most 1, got {share}: set it to 0.5 for the harder half"
            )
        self.learn = learn
        self.focus = focus
        self.review = review
        self.share = share

    def blocks(self, epoch: Epoch) -> NDArray[Any]:
        """Return a permutation, or in an epoch of focus the hardest blocks over and over.

        Args:
            epoch: What is known of it.

        Returns:
            [N] int64.
        """
        shuffled = Shuffled().blocks(epoch)
        if phase_of(epoch.number, self.learn, self.focus, self.review) != "focus":
            return shuffled
        losses = np.nan_to_num(epoch.losses, nan=np.inf, posinf=np.inf)[shuffled]
        ranked = shuffled[np.argsort(-losses, kind="stable")]
        draw = epoch.generator()
        passes = [
            np.sort(blocks)[torch.randperm(len(blocks), generator=draw).numpy()]
            for blocks in focused_passes(ranked, self.share)
        ]
        return np.concatenate(passes)
