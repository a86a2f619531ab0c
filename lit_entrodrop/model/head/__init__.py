"""Linear head, cross-entropy and entropy in one pass, without the logits of all tokens."""

from lit_entrodrop.model.head.divergence import linear_kl
from lit_entrodrop.model.head.linear import linear_ce_entropy
from lit_entrodrop.model.head.logits import LinearHead
from lit_entrodrop.model.head.losses import HeadOutputs

__all__ = ["HeadOutputs", "LinearHead", "linear_ce_entropy", "linear_kl"]
