"""Rankings of tokens by entropy, by chance, and by both."""

import math
from typing import Literal

import torch
from torch import Tensor

from regularizers.functional import number_documents, rank_in_group

Scope = Literal["document", "sequence", "batch", "corpus"]


def ranking_groups(document_ids: Tensor, scope: Scope) -> Tensor:
    """Return the number of each token's ranking group, ``[B, T]`` int64 in ``[0, B·T)``.

    >>> ranking_groups(torch.tensor([[0, 1], [0, 0]]), "document")
    tensor([[0, 1],
            [2, 2]])
    """
    if scope == "batch":
        return torch.zeros_like(document_ids)
    rows, length = document_ids.shape
    if scope == "document":
        return number_documents(document_ids)
    return torch.arange(rows, device=document_ids.device)[:, None].expand(rows, length)


def percentile_in_group(scores: Tensor, eligible: Tensor, groups: Tensor) -> Tensor:
    """Return the rank of each eligible token in its group as a share, ``[B, T]`` in (0, 1).

    >>> every, one_group = torch.ones(1, 2, dtype=torch.bool), torch.zeros(1, 2, dtype=torch.long)
    >>> percentile_in_group(torch.tensor([[3.0, 1.0]]), every, one_group)
    tensor([[0.7500, 0.2500]])
    """
    rank, count = rank_in_group(scores, eligible, groups)
    return (rank + 0.5) / count


def percentile_in_corpus(scores: Tensor, quantiles: Tensor) -> Tensor:
    """Return the share of a corpus with a lower score, half of equal scores included, ``[B, T]``.

    Args:
        scores: Scores ``[B, T]``.
        quantiles: Evenly spaced quantiles ``[Q]`` of the scores of the corpus, ascending.

    >>> percentile_in_corpus(torch.tensor([[0.5, 2.0]]), torch.tensor([0.0, 1.0, 2.0, 2.0]))
    tensor([[0.2500, 0.7500]])
    """
    scores = scores.to(quantiles.dtype)
    below = torch.searchsorted(quantiles, scores)
    up_to = torch.searchsorted(quantiles, scores, right=True)
    return (below + up_to) / (2 * len(quantiles))


def blended_quantile(share: float, weight: float) -> float:
    """Return the quantile of ``weight · r + (1 − weight) · u``, for independent r, u ~ U(0, 1).

    The density of the sum is a trapezoid; its quantile function has three pieces.

    Args:
        share: Share of the distribution below the quantile, in [0, 1].
        weight: Weight of r, in [0, 1].

    >>> blended_quantile(0.3, 0.0), blended_quantile(0.5, 0.7)
    (0.3, 0.5)
    """
    narrow, wide = sorted((weight, 1 - weight))
    slope = narrow / (2 * wide)
    if share < slope:
        return math.sqrt(2 * share * narrow * wide)
    if share > 1 - slope:
        return 1 - math.sqrt(2 * (1 - share) * narrow * wide)
    return share * wide + narrow / 2
