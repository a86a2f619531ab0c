"""Orders in which training blocks are read, one file each."""

from lit_entrodrop.data.orders.base import BlockOrder, Epoch, ordered_blocks
from lit_entrodrop.data.orders.learn_focus_review import LearnFocusReview
from lit_entrodrop.data.orders.shuffled import Shuffled

__all__ = ["BlockOrder", "Epoch", "LearnFocusReview", "Shuffled", "ordered_blocks"]
