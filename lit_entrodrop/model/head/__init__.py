"""Linear head, cross-entropy and entropy in one pass, without the logits of all tokens."""

from lit_entrodrop.model.head.divergence import linear_kl
from lit_entrodrop.model.head.fused import FusedHead, fused_head_of
from lit_entrodrop.model.head.linear import HeadOutputs, linear_ce_entropy
from lit_entrodrop.model.head.logits import LinearHead
from lit_entrodrop.model.head.lora import UnsupportedHeadError

__all__ = [
    "FusedHead",
    "HeadOutputs",
    "LinearHead",
    "UnsupportedHeadError",
    "fused_head_of",
    "linear_ce_entropy",
    "linear_kl",
]
