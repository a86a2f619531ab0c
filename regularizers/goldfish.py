"""The goldfish loss: some labels are never learned, and always the same ones."""

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
    """Hash the tokens before each token; the token itself has no part in it.

    Args:
        input_ids: ``[B, T]`` int64.
        context: how many tokens are hashed, h. What is before the row counts as id −1.

    Returns:
        ``[B, T]`` int64 in ``[0, 2³¹)``, about uniform over different contexts.

    >>> import torch
    >>> first, second = context_hash(torch.tensor([[7, 8, 9, 0, 7, 8, 1]]), 2)[0, [2, 6]].tolist()
    >>> first == second  # 7, 8 stand before both
    True
    """
    windows = nn.functional.pad(input_ids, (context, 0), value=-1).unfold(1, context, 1)[:, :-1]
    powers = tuple(pow(_BASE, place, _PRIME) for place in range(1, context + 1))
    # One more than the id, as an id of 0 must count too.
    terms = (windows + 1) * ids_tensor(powers, input_ids.device) % _PRIME
    hashed = terms.sum(-1) % _PRIME
    # Contexts that differ little have sums that differ little until their bits are mixed.
    hashed = (hashed ^ (hashed >> 16)) * _MIXER % _PRIME
    return hashed ^ (hashed >> 15)


def goldfish_mask(input_ids: Tensor, document_ids: Tensor, context: int, rate: float) -> Tensor:
    """Mark the tokens whose label is ignored.

    Args:
        input_ids: ``[B, T]`` int64.
        document_ids: ``[B, T]`` int64, -1 for padding.
        context: how many tokens before it decide about a token, h.
        rate: share of the contexts after which a label is ignored, in [0, 1].

    Returns:
        ``[B, T]`` bool; false where fewer than h tokens of the document stand before.

    >>> import torch
    >>> ids = torch.arange(100_000)[None]
    >>> goldfish_mask(ids, torch.zeros_like(ids), 13, 0.25).float().mean()
    tensor(0.2526)
    """
    before = nn.functional.pad(document_ids, (context, 0), value=-1)[:, :-context]
    within = (document_ids >= 0) & (before == document_ids)
    return within & (context_hash(input_ids, context) < round(rate * 2**31))


class Goldfish(Regularizer):
    """Leave out of the loss the labels that a hash of the tokens before them picks.

    Whether a label counts depends on the h tokens before it alone. So a passage that occurs again,
    in another epoch, document or batch, lacks the same labels, and cannot be learned by heart:

        L = Σ_t G_t · (−ln p_t) / Σ_t G_t,  G_t = 0 if hash(x_{t−h}, …, x_{t−1}) < rate, else 1

    The hash is ours: the window of the published code includes the label itself, and its product
    of ids is 0 wherever an id is 0. The first h tokens of a document always count, as the
    beginnings of most documents are alike, and one hash would decide for all of them; so do the
    first h tokens of a row that continues a document. A rate that rises only adds to the labels
    that are ignored.

    Source:
        Hans et al. 2024, arXiv 2406.10209, section 3.

    Args:
        curriculum: share of the labels that are ignored, 1/k of the paper, over training; a number
            is constant.
        context: how many tokens before it decide about a label, h.

    Raises:
        ValueError: if a setting is out of range.

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
        """Refuse another one, which would pick from the same labels."""
        if any(isinstance(other, Goldfish) for other in others):
            raise ValueError(
                "Goldfish: expected one of them, got two, whose hash picks the same labels: take "
                "the one of the higher rate"
            )

    def on_token_weight(self, token_weight: Tensor, step: TrainingStep) -> Tensor:
        """Take the labels that the hash picks out of the loss and of its denominator."""
        rate = self.curriculum(step.progress)
        dropped = goldfish_mask(step.input_ids, step.document_ids, self.context, rate)
        step.log("drop_rate", (dropped & step.valid).sum() / step.valid.sum().clamp(min=1))
        return token_weight.masked_fill(dropped, 0.0)
