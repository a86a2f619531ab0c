from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from lit_entrodrop.data.orders import BlockOrder, Epoch, LearnFocusReview, Shuffled, ordered_blocks


class Given(BlockOrder):
    """Returns what it was given."""

    def __init__(self, blocks: Any) -> None:
        self._blocks = blocks

    def blocks(self, epoch: Epoch) -> NDArray[Any]:
        return np.asarray(self._blocks)


class Repeating(Given):
    repeats_blocks = True


def epoch(blocks: int, number: int = 0, seed: int = 0) -> Epoch:
    return Epoch(number, 9, seed, np.full(blocks, np.nan, np.float32))


@pytest.mark.parametrize(
    "blocks", [[0, 1], [0, 1, 2, 2], [[0, 1, 2]], [0.0, 1.0, 2.0], [0, 1, 3], [-1, 0, 1]]
)
def test_anything_but_blocks_is_refused(blocks: Any) -> None:
    with pytest.raises(ValueError, match=r"data.order: expected Repeating.blocks .* 3 integers"):
        ordered_blocks(Repeating(blocks), epoch(3))


def test_repetition_must_be_declared() -> None:
    assert ordered_blocks(Repeating([2, 2, 0]), epoch(3)).tolist() == [2, 2, 0]
    with pytest.raises(ValueError, match=r"each block once, got .* in epoch 4: .* repeats_blocks"):
        ordered_blocks(Given([2, 2, 0]), epoch(3, number=4))


@pytest.mark.parametrize("dtype", [np.int32, np.uint8, np.int64])
def test_integers_of_any_kind_are_taken(dtype: Any) -> None:
    read = ordered_blocks(Given(np.array([1, 0], dtype)), epoch(2))
    assert (read.dtype, read.tolist()) == (np.int64, [1, 0])


def test_an_order_shows_its_public_settings() -> None:
    assert repr(Shuffled()) == "lit_entrodrop.data.orders.shuffled.Shuffled()"
    assert repr(LearnFocusReview(share=0.2)).endswith("(learn=1, focus=1, review=1, share=0.2)")
    assert repr(Given([1])).endswith("Given()")
