"""How much text a model has learned by heart."""

from dataclasses import dataclass

import torch
from torch import Tensor
from torchmetrics import Metric

# More than any context holds.
MOST_TOKENS = 2**30


@dataclass(frozen=True)
class MemorizationProbe:
    """How it is found out whether a model has learned documents by heart.

    Args:
        prompt_tokens: first tokens of a document that are given, k.
        match_tokens: next tokens that greedy decoding must match, n.

    Raises:
        ValueError: if one is below 1.
    """

    prompt_tokens: int = 16
    match_tokens: int = 16

    def __post_init__(self) -> None:
        given = (self.prompt_tokens, self.match_tokens)
        if not all(isinstance(each, int) and 1 <= each <= MOST_TOKENS for each in given):
            raise ValueError(
                f"memorization: expected prompt_tokens and match_tokens from 1 to {MOST_TOKENS}, "
                f"got {given[0]} and {given[1]}: take for example 16 and 16"
            )


class Memorization(Metric):
    """Share of documents that greedy decoding continues verbatim.

    A document counts if, given its first k tokens, the likeliest next tokens are its own n times in
    a row. As long as they are, decoding has seen nothing but the document, so that one ordinary
    forward pass over the document tells it, without generating. Documents that are shorter, or of
    which not all these tokens are labels, are left out.

    Args:
        probe: tokens given, k, and tokens to match, n.

    Source: Carlini et al. 2023, Quantifying Memorization Across Neural Language Models
    (arXiv 2202.07646), definition 3.1, for prefixes at the start of a document.

    >>> memorization = Memorization(MemorizationProbe(prompt_tokens=1, match_tokens=2))
    >>> correct, position = torch.tensor([[False, True, True]]), torch.tensor([[0, 1, 2]])
    >>> memorization.update(correct, position > 0, position, torch.zeros_like(position))
    >>> memorization.compute().item()
    1.0
    """

    full_state_update = False
    documents: Tensor
    memorized: Tensor

    def __init__(self, probe: MemorizationProbe) -> None:
        super().__init__()
        self.probe = probe
        for name in ("documents", "memorized"):
            self.add_state(name, default=torch.zeros(()).long(), dist_reduce_fx="sum")

    def update(
        self, correct: Tensor, valid: Tensor, position_ids: Tensor, document_ids: Tensor
    ) -> None:
        """Count the documents of a batch.

        Args:
            correct: ``[B, T]`` bool, whether no word is likelier than the label.
            valid: ``[B, T]`` bool, tokens that count.
            position_ids: ``[B, T]`` int64, from 0 in every document.
            document_ids: ``[B, T]`` int64, from 0 in each row, -1 for padding.
        """
        start, length = self.probe.prompt_tokens, self.probe.match_tokens
        within = (position_ids >= start) & (position_ids < start + length) & valid
        self.documents += (_per_document(within, document_ids) == length).sum()
        self.memorized += (_per_document(within & correct, document_ids) == length).sum()

    def compute(self) -> Tensor:
        """Return the share, in [0, 1]; NaN if no document is long enough."""
        return self.memorized.float() / self.documents


def _per_document(chosen: Tensor, document_ids: Tensor) -> Tensor:
    counts = torch.zeros_like(document_ids)
    # Padding is never chosen, so that it may share a place.
    return counts.scatter_add_(1, document_ids.clamp(min=0), chosen.long())
