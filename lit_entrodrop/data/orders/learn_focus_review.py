"""Learn-Focus-Review: revisit blocks of high loss, and review all blocks periodically."""

from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray

from lit_entrodrop.data.orders.base import BlockOrder, Epoch
from lit_entrodrop.data.orders.shuffled import Shuffled
from lit_entrodrop.runtime.setting_checks import check_at_least

Phase = Literal["learn", "focus", "review"]


def phase_of(number: int, learn: int, focus: int, review: int) -> Phase:
    """Return the phase of an epoch: first learning, then focus and review in alternation.

    >>> [phase_of(number, learn=1, focus=2, review=1) for number in range(5)]
    ['learn', 'focus', 'focus', 'review', 'focus']
    """
    if number < learn:
        return "learn"
    return "focus" if (number - learn) % (focus + review) < focus else "review"


def focused_passes(ranked: NDArray[np.int64], share: float) -> list[NDArray[np.int64]]:
    """Divide the readings of a focus epoch among the hardest blocks.

    Args:
        ranked: All block numbers by decreasing loss, [N].
        share: Share of the blocks that is read, in (0, 1].

    Returns:
        Passes with N readings in total: the share · N hardest blocks (rounded, at least one) as
        often as they fit, then the hardest of these once more.

    >>> [blocks.tolist() for blocks in focused_passes(np.array([3, 0, 4, 2, 1]), share=0.4)]
    [[3, 0], [3, 0], [3]]
    """
    hardest = ranked[: max(1, round(share * len(ranked)))]
    return [hardest[: len(ranked) - start] for start in range(0, len(ranked), len(hardest))]


class LearnFocusReview(BlockOrder):
    """Read blocks of high loss more often, and review all blocks periodically.

    The first `learn` epochs read every block once. Then `focus` epochs, which read only the hardest
    blocks, alternate with `review` epochs, which read every block once. Let r_i = 0, 1, … be the
    rank of block i by decreasing loss. A focus epoch reads block i this many times:

        n_i = ⌊N / K⌋ + 1[r_i < N mod K] if r_i < K, else 0,    K = max(1, round(share · N))

    The loss of a block is its mean training loss at its last reading before the epoch. It comes
    from the ordinary, regularized pass and needs no extra pass. A block that was never read counts
    as the hardest; ties are broken at random. Each pass over the hardest blocks is shuffled
    separately, so two readings of a block are in different passes. `share: 1` is `Shuffled`, bit
    for bit.

    The paper pretrains and drops clusters of blocks of low perplexity, which return for review.
    This class drops blocks below a quantile of the loss, which ranks them as perplexity does. Its
    phases are whole epochs of N readings, and its defaults are not from the paper.

    Source:
        Prakriya et al. 2025, Accelerating Large Language Model Pretraining via LFR Pedagogy,
        arXiv 2409.06131.

    Args:
        learn: Number of epochs at the start that read every block, at least 1.
        focus: Number of consecutive epochs that read only the hardest blocks, at least 1.
        review: Number of consecutive epochs after these that read every block, at least 1.
        share: Share of the blocks, those of the highest loss, that a focus epoch reads, in (0, 1].

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
                "LearnFocusReview share: expected the share of blocks that focus epochs read, "
                f"above 0 and at most 1, got {share}: set it to 0.5 for the harder half"
            )
        self.learn = learn
        self.focus = focus
        self.review = review
        self.share = share

    def blocks(self, epoch: Epoch) -> NDArray[Any]:
        """Return a permutation, or in a focus epoch the hardest blocks repeatedly."""
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
