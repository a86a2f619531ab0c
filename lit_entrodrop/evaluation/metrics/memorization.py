"""Share of documents that a model has memorized verbatim."""

from dataclasses import dataclass

import torch
from torch import Tensor
from torchmetrics import Metric

# Longer than any context.
MOST_TOKENS = 2**30


@dataclass(frozen=True)
class MemorizationProbe:
    """Verbatim-memorization probe.

    Args:
        prompt_tokens: Number of leading tokens of a document that are given, k. Default: 16.
        match_tokens: Number of next tokens that greedy decoding must reproduce, n. Default: 16.

    Raises:
        ValueError: If a number is below 1 or above 2**30.
    """

    prompt_tokens: int = 16
    match_tokens: int = 16

    def __post_init__(self) -> None:
        given = (self.prompt_tokens, self.match_tokens)
        if not all(isinstance(each, int) and 1 <= each <= MOST_TOKENS for each in given):
            raise ValueError(
                f"memorization: expected prompt_tokens and match_tokens from 1 to {MOST_TOKENS}, "
                f"got {given[0]} and {given[1]}: use for example 16 and 16"
            )


class Memorization(Metric):
    """Share of documents that greedy decoding continues verbatim.

    A document counts if, after its first k tokens, the most probable next token is its own n times
    in a row. Until the first mismatch, greedy decoding sees only the document, so one ordinary
    forward pass over the document gives the answer without generation. Documents that are shorter
    than k + n tokens, or in which some of these n tokens are not labels, are excluded.

    Args:
        probe: Number of tokens given, k, and to match, n.

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
        """Add the documents of a batch.

        Args:
            correct: Whether no token is more probable than the label, ``[B, T]`` bool.
            valid: Whether each token counts, ``[B, T]`` bool.
            position_ids: Position of each token in its document, from 0, ``[B, T]`` int64.
            document_ids: Index of the document in its row, ``[B, T]`` int64; -1 for padding.
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
    # Padding is never chosen, so it may share an index with document 0.
    return counts.scatter_add_(1, document_ids.clamp(min=0), chosen.long())
