import numpy as np
import pytest

from lit_entrodrop.data.loading._weighted_order import WeightedOrder, check_weights
from lit_entrodrop.data.orders import Epoch, LearnFocusReview, Shuffled, ordered_blocks


def epoch(number: int, blocks: int, seed: int = 0) -> Epoch:
    return Epoch(number, 9, seed, np.full(blocks, np.nan, np.float32))


def test_blocks_of_a_source_are_read_equally_often_over_epochs() -> None:
    order = WeightedOrder([30, 10], {"notes": 1.0, "exam": 2.0})
    read = np.concatenate([ordered_blocks(order, epoch(number, 40)) for number in range(5)])
    counts = np.bincount(read, minlength=40)
    # 24 and 16 readings an epoch: 4 of each of the 30 blocks, and 8 of each of the 10.
    assert counts.tolist() == [4] * 30 + [8] * 10
    assert order.repeats_blocks


def test_order_is_a_function_of_seed_and_epoch() -> None:
    order = WeightedOrder([30, 10], {"notes": 1.0, "exam": 2.0})
    read = {key: ordered_blocks(order, epoch(*key)).tolist() for key in [(0, 40), (1, 40)]}
    assert ordered_blocks(order, epoch(0, 40)).tolist() == read[0, 40] != read[1, 40]
    assert ordered_blocks(order, epoch(0, 40, seed=1)).tolist() != read[0, 40]


def test_equal_weights_read_each_block_once() -> None:
    order = WeightedOrder([3, 2], {"notes": 0.3, "exam": 0.3})
    assert sorted(ordered_blocks(order, epoch(4, 5))) == list(range(5))


def test_source_without_training_text_is_refused() -> None:
    with pytest.raises(ValueError, match=r"training documents of each source .* none of exam"):
        WeightedOrder([3, 0], {"notes": 1.0, "exam": 2.0})


def test_weights_do_not_go_with_an_order_or_fresh_cuts() -> None:
    check_weights({"exam": 2.0}, Shuffled())
    check_weights({}, LearnFocusReview())
    with pytest.raises(ValueError, match=r"data.order: expected the default .* LearnFocusReview"):
        check_weights({"exam": 2.0}, LearnFocusReview())
    with pytest.raises(ValueError, match=r"data.repack: expected never, because the weights"):
        check_weights({"exam": 2.0}, Shuffled(), "epoch")


def test_source_that_no_epoch_reads_is_refused() -> None:
    with pytest.raises(ValueError, match=r"^data\.corpus: .* no block of exam: raise its weight"):
        WeightedOrder([30, 10], {"notes": 1.0, "exam": 0.001})
