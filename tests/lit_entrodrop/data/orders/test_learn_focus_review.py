from typing import Any

import numpy as np
import pytest

from lit_entrodrop.data.orders import Epoch, LearnFocusReview, Shuffled, ordered_blocks
from lit_entrodrop.data.orders.learn_focus_review import phase_of

SIZES = [1, 2, 3, 4, 7, 100]
SHARES = [0.01, 0.3, 0.5, 0.7, 1.0]


def drawn(blocks: int, seed: int, number: int) -> Epoch:
    losses = np.random.default_rng(seed + number).permutation(blocks) / 10
    return Epoch(number, 6, seed, losses.astype(np.float32))


def readings(order: LearnFocusReview, epoch: Epoch) -> list[int]:
    """Count how often each block is read, the one of the highest loss first."""
    counts = np.bincount(ordered_blocks(order, epoch), minlength=epoch.num_blocks)
    hardest_first = sorted(range(epoch.num_blocks), key=lambda block: -epoch.losses[block])
    return [int(counts[block]) for block in hardest_first]


@pytest.mark.parametrize("blocks", SIZES)
@pytest.mark.parametrize("share", SHARES)
@pytest.mark.parametrize("seed", range(3))
def test_focus_shares_out_an_epoch_among_the_hardest(blocks: int, share: float, seed: int) -> None:
    counts = readings(LearnFocusReview(share=share), drawn(blocks, seed, number=1))
    read = [count for count in counts if count]
    assert sum(counts) == blocks
    assert len(read) == min(max(1, round(share * blocks)), blocks)
    # The hardest are read the most, and none more than once more than another.
    assert counts == sorted(counts, reverse=True)
    assert max(read) - min(read) <= 1


@pytest.mark.parametrize("blocks", SIZES)
@pytest.mark.parametrize("number", [0, 2, 4])
def test_learning_and_review_read_all_in_the_ordinary_order(blocks: int, number: int) -> None:
    epoch = drawn(blocks, 3, number)
    assert LearnFocusReview().blocks(epoch).tolist() == Shuffled().blocks(epoch).tolist()


@pytest.mark.parametrize("blocks", SIZES)
@pytest.mark.parametrize("number", range(4))
def test_the_whole_share_is_plain_shuffling(blocks: int, number: int) -> None:
    epoch = drawn(blocks, 1, number)
    ours = LearnFocusReview(share=1.0).blocks(epoch)
    assert ours.tolist() == Shuffled().blocks(epoch).tolist()


def test_phases_take_turns() -> None:
    phases = "".join(phase_of(number, 2, 3, 1)[0] for number in range(12))
    assert phases == "llfffrfffrff"


def test_two_readings_of_a_block_lie_in_different_passes() -> None:
    read = LearnFocusReview(share=0.25).blocks(drawn(40, 0, 1)).reshape(4, 10)
    assert len({tuple(sorted(each)) for each in read.tolist()}) == 1
    assert len({tuple(each) for each in read.tolist()}) == 4


def test_unknown_blocks_count_as_the_hardest_and_ties_are_drawn() -> None:
    losses = np.array([5, np.nan, 9, np.nan], np.float32)
    order = LearnFocusReview(share=0.5)
    assert set(order.blocks(Epoch(1, 2, 0, losses)).tolist()) == {1, 3}
    nothing_known = np.full(8, np.nan, np.float32)
    chosen = {tuple(sorted(order.blocks(Epoch(1, 2, seed, nothing_known)))) for seed in range(9)}
    assert len(chosen) > 1


def test_order_is_a_pure_function_that_leaves_the_losses_alone() -> None:
    epoch = drawn(30, 0, 1)
    before, order = epoch.losses.copy(), LearnFocusReview()
    assert order.blocks(epoch).tolist() == order.blocks(epoch).tolist()
    np.testing.assert_array_equal(epoch.losses, before)
    assert order.blocks(drawn(30, 1, 1)).tolist() != order.blocks(epoch).tolist()


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({"learn": 0}, "learn: expected a whole number of at least 1, got 0"),
        ({"focus": 0.5}, "focus: expected a whole number"),
        ({"review": -1}, "review: expected"),
        ({"share": 0.0}, "share: expected .* above 0 and at most 1, got 0.0: set it"),
        ({"share": 1.1}, "share: expected"),
        ({"share": float("nan")}, "share: expected"),
    ],
)
def test_bad_settings_are_refused(settings: dict[str, Any], named: str) -> None:
    with pytest.raises(ValueError, match=named):
        LearnFocusReview(**settings)
