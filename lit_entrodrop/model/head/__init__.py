"""Linear head, cross-entropy and entropy in one pass, without holding the logits of all tokens."""

from lit_entrodrop.model.head.divergence import linear_kl
from lit_entrodrop.model.head.form import HeadForm, UnsupportedHeadError, head_form
from lit_entrodrop.model.head.linear import HeadOutputs, linear_ce_entropy
from lit_entrodrop.model.head.logits import LinearHead

__all__ = [
    "HeadForm",
    "HeadOutputs",
    "LinearHead",
    "UnsupportedHeadError",
    "head_form",
    "linear_ce_entropy",
    "linear_kl",
]
