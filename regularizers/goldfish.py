"""Goldfish loss: never learn some labels, the same ones in every epoch."""

from collections.abc import Sequence

from torch import Tensor, nn

from regularizers.base import Regularizer
from regularizers.curricula import Curriculum, as_curriculum, require_probability
from regularizers.functional import ids_tensor
from regularizers.training_step import TrainingStep, Vocabulary

# Products of two numbers below this prime fit into 64 bits.
_PRIME = 2**31 - 1
_BASE = 1_103_515_245
_MIXER = 1_597_334_677


def context_hash(input_ids: Tensor, context: int) -> Tensor:
    """Hash the tokens before each token; the token itself is not included.

    Args:
        input_ids: Token ids ``[B, T]`` int64.
        context: Number of hashed tokens, h. Positions before the row count as id −1.

    Returns:
        ``[B, T]`` int64 in ``[0, 2³¹)``, approximately uniform over different contexts.

    >>> import torch
    >>> first, second = context_hash(torch.tensor([[7, 8, 9, 0, 7, 8, 1]]), 2)[0, [2, 6]].tolist()
    >>> first == second  # 7, 8 precede both
    True
    """
    windows = nn.functional.pad(input_ids, (context, 0), value=-1).unfold(1, context, 1)[:, :-1]
    powers = tuple(pow(_BASE, place, _PRIME) for place in range(1, context + 1))
    # One more than the id, so that an id of 0 counts too.
    terms = (windows + 1) * ids_tensor(powers, input_ids.device) % _PRIME
    hashed = terms.sum(-1) % _PRIME
    # Similar contexts have similar sums until their bits are mixed.
    hashed = (hashed ^ (hashed >> 16)) * _MIXER % _PRIME
    return hashed ^ (hashed >> 15)


def goldfish_mask(input_ids: Tensor, document_ids: Tensor, context: int, rate: float) -> Tensor:
    """Mark the tokens whose label is ignored.

    Args:
        input_ids: Token ids ``[B, T]`` int64.
        document_ids: Document numbers ``[B, T]`` int64, -1 for padding.
        context: Number of preceding tokens that determine whether a label is ignored, h.
        rate: Fraction of the contexts after which a label is ignored, in [0, 1].

    Returns:
        ``[B, T]`` bool; false where fewer than h tokens of the document precede.

    >>> import torch
    >>> ids = torch.arange(100_000)[None]
    >>> goldfish_mask(ids, torch.zeros_like(ids), 13, 0.25).float().mean()
    tensor(0.2526)
    """
    before = nn.functional.pad(document_ids, (context, 0), value=-1)[:, :-context]
    within = (document_ids >= 0) & (before == document_ids)
    return within & (context_hash(input_ids, context) < round(rate * 2**31))


class Goldfish(Regularizer):
    """Exclude labels, selected by a hash of the preceding tokens, from the loss.

    Whether a label counts depends only on the h tokens before it. A passage that occurs again, in
    another epoch, document or batch, lacks the same labels and cannot be memorized verbatim:

        L = Σ_t G_t · (−ln p_t) / Σ_t G_t,  G_t = 0 if hash(x_{t−h}, …, x_{t−1}) < rate, else 1

    The hash differs from the published code: there the window includes the label itself, and the
    product of ids is 0 if one id is 0. The first h tokens of a document always count: most
    documents start similarly, and one hash would decide for all of them. So do the first h tokens
    of a row that continues a document. The realized share, ``goldfish/drop_rate``, is therefore
    below the rate: about rate · (n − h) / (n − 1) for documents of n tokens. For documents of 58
    tokens and a rate of 0.25, it is 0.20. A shorter context or a higher rate compensates for it. An
    increasing rate only adds to the ignored labels.

    Source:
        Hans et al. 2024, arXiv 2406.10209, section 3.

    Args:
        curriculum: Fraction of ignored labels after h tokens of a document, 1/k in the paper, over
            training; a number is constant.
        context: Number of preceding tokens that determine whether a label is ignored, h.

    Raises:
        ValueError: If a setting is out of range.

    >>> Goldfish().curriculum(0.5)
    0.25
    """

    def __init__(self, curriculum: Curriculum | float = 0.25, context: int = 13) -> None:
        super().__init__()
        self.curriculum = as_curriculum(curriculum)
        require_probability("Goldfish curriculum", self.curriculum)
        if context < 1:
            raise ValueError(f"Goldfish context: expected at least 1 token, got {context}")
        self.context = context

    def check(self, vocabulary: Vocabulary, others: Sequence[Regularizer]) -> None:
        """Reject a second goldfish loss, which would select the same labels."""
        if any(isinstance(other, Goldfish) for other in others):
            raise ValueError(
                "Goldfish: expected one Goldfish, got two, which select the same labels: keep "
                "the one with the higher rate"
            )

    def on_token_weight(self, token_weight: Tensor, step: TrainingStep) -> Tensor:
        """Exclude the labels that the hash selects from the loss and its denominator."""
        rate = self.curriculum(step.progress)
        dropped = goldfish_mask(step.input_ids, step.document_ids, self.context, rate)
        step.log("drop_rate", (dropped & step.valid).sum() / step.valid.sum().clamp(min=1))
        return token_weight.masked_fill(dropped, 0.0)
