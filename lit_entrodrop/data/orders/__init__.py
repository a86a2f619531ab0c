"""Orders in which the training blocks are read, one file each."""

from lit_entrodrop.data.orders.base import BlockOrder, Epoch, read_order
from lit_entrodrop.data.orders.learn_focus_review import LearnFocusReview
from lit_entrodrop.data.orders.shuffled import Shuffled

__all__ = ["BlockOrder", "Epoch", "LearnFocusReview", "Shuffled", "read_order"]
