"""Linear head, cross-entropy and entropy in one pass, without holding the logits of all tokens."""

from lit_entrodrop.head.divergence import linear_kl
from lit_entrodrop.head.form import HeadForm, UnsupportedHeadError, head_form
from lit_entrodrop.head.linear import HeadOutputs, linear_ce_entropy
from lit_entrodrop.head.logits import LinearHead

__all__ = [
    "HeadForm",
    "HeadOutputs",
    "LinearHead",
    "UnsupportedHeadError",
    "head_form",
    "linear_ce_entropy",
    "linear_kl",
]
