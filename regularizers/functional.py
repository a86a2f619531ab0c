"""Functions of token regularizers on tensors.

Shapes: B rows in the batch, T tokens in a row, V vocabulary size. Position ``t`` always refers to
token ``t``: its id, its entropy, its loss, its weight.
"""

from collections.abc import Sequence
from fractions import Fraction
from functools import lru_cache

import torch
from torch import Tensor

IGNORE_INDEX = -100


def shift_right(values: Tensor, fill: float | bool) -> Tensor:
    """Move ``values[:, t]`` to ``t + 1``, so that the prediction of token ``t`` is at ``t``.

    Args:
        values: Values ``[B, T]`` or ``[B, T, ...]``.
        fill: Value of the first column, which nothing predicts.

    Returns:
        A new tensor of the same shape and dtype.

    >>> shift_right(torch.tensor([[1.0, 2.0, 3.0]]), 0.0)
    tensor([[0., 1., 2.]])
    """
    return torch.cat([torch.full_like(values[:, :1], fill), values[:, :-1]], dim=1)


def is_document_start(document_ids: Tensor) -> Tensor:
    """Mark the first token of every document in a packed row.

    Args:
        document_ids: Document numbers ``[B, T]`` int64, distinct within a row; -1 for padding.

    Returns:
        ``[B, T]`` bool.

    >>> is_document_start(torch.tensor([[0, 0, 1, -1]]))
    tensor([[ True, False,  True,  True]])
    """
    return document_ids != shift_right(document_ids, -2)


def is_unpredicted(document_ids: Tensor) -> Tensor:
    """Mark the tokens that nothing predicts: first tokens of documents, and padding.

    Args:
        document_ids: Document numbers ``[B, T]`` int64, -1 for padding.

    Returns:
        ``[B, T]`` bool.

    >>> is_unpredicted(torch.tensor([[0, 0, -1, -1]]))
    tensor([[ True, False,  True,  True]])
    """
    return is_document_start(document_ids) | (document_ids < 0)


def document_positions(document_ids: Tensor) -> Tensor:
    """Number the tokens of each packed document from 0, ``[B, T]`` int64.

    >>> document_positions(torch.tensor([[0, 0, 1, 1]]))
    tensor([[0, 1, 0, 1]])
    """
    places = torch.arange(document_ids.shape[1], device=document_ids.device)
    starts = torch.where(is_document_start(document_ids), places, 0)
    return places - starts.cummax(1).values


def number_documents(document_ids: Tensor) -> Tensor:
    """Number all documents of a batch, ``[B, T]`` int64 in ``[0, B·T)``.

    >>> number_documents(torch.tensor([[0, 1], [0, 0]]))
    tensor([[0, 1],
            [2, 2]])
    """
    return (is_document_start(document_ids).flatten().cumsum(0) - 1).view_as(document_ids)


def document_sum(values: Tensor, document_ids: Tensor) -> Tensor:
    """Sum the values of each packed document, and return the sum at each of its tokens.

    Args:
        values: Values ``[B, T]``, any dtype.
        document_ids: Document numbers ``[B, T]`` int64, -1 for padding.

    Returns:
        ``[B, T]``, the dtype of the values.

    >>> document_sum(torch.tensor([[1.0, 2.0, 5.0]]), torch.tensor([[0, 0, 1]]))
    tensor([[3., 3., 5.]])
    """
    documents = number_documents(document_ids).flatten()
    sums = torch.zeros_like(values).flatten().scatter_add(0, documents, values.flatten())
    return sums[documents].view_as(values)


def document_mean(values: Tensor, mask: Tensor, document_ids: Tensor) -> Tensor:
    """Average the values of each packed document, and return the mean at each of its tokens.

    Args:
        values: Values ``[B, T]``, floating.
        mask: Mask ``[B, T]`` bool of the values that count.
        document_ids: Document numbers ``[B, T]`` int64, -1 for padding.

    Returns:
        ``[B, T]``, the dtype of the values; 0 in documents in which no value counts.

    >>> mask = torch.tensor([[False, True, True, True]])
    >>> document_mean(torch.tensor([[9.0, 1.0, 3.0, 5.0]]), mask, torch.tensor([[0, 0, 0, 1]]))
    tensor([[2., 2., 2., 5.]])
    """
    count = document_sum(mask.to(values.dtype), document_ids)
    return document_sum(values.masked_fill(~mask, 0.0), document_ids) / count.clamp(min=1)


def predicted_labels(labels: Tensor, document_ids: Tensor) -> Tensor:
    """Ignore the labels that nothing predicts: of first tokens and of padding.

    Args:
        labels: Labels ``[B, T]`` int64, aligned with the inputs.
        document_ids: Document numbers ``[B, T]`` int64, -1 for padding.

    Returns:
        ``[B, T]`` int64, -100 where nothing predicts the token.

    >>> predicted_labels(torch.tensor([[5, 6, 7]]), torch.tensor([[0, 0, 1]]))
    tensor([[-100,    6, -100]])
    """
    return labels.masked_fill(is_unpredicted(document_ids), IGNORE_INDEX)


def is_lowest_share(scores: Tensor, eligible: Tensor, groups: Tensor, share: float) -> Tensor:
    """Mark, within each group, exactly the ``⌊share · n⌋`` eligible tokens of lowest score.

    Ties are resolved in favor of the earlier position, so the result is deterministic. The share
    is rounded to the nearest fraction with a denominator of at most a million: 0.29 of 100 tokens
    are 29.

    Args:
        scores: Scores ``[B, T]``, any real dtype; read only where eligible.
        eligible: Mask ``[B, T]`` bool.
        groups: Group numbers ``[B, T]`` int64 in ``[0, B·T)``; each group is ranked separately.
        share: Fraction in ``[0, 1]``.

    Returns:
        ``[B, T]`` bool.

    >>> scores = torch.tensor([[3.0, 1.0, 2.0, 1.0]])
    >>> every, one_group = torch.ones(1, 4, dtype=torch.bool), torch.zeros(1, 4, dtype=torch.long)
    >>> is_lowest_share(scores, every, one_group, 0.5)
    tensor([[False,  True, False,  True]])
    """
    rank, count = rank_in_group(scores, eligible, groups)
    fraction = Fraction(share).limit_denominator(1_000_000)
    return eligible & (rank < count * fraction.numerator // fraction.denominator)


def rank_in_group(scores: Tensor, eligible: Tensor, groups: Tensor) -> tuple[Tensor, Tensor]:
    """Rank the eligible tokens of each group by ascending score.

    Args:
        scores: Scores ``[B, T]``, any real dtype; read only where eligible.
        eligible: Mask ``[B, T]`` bool.
        groups: Group numbers ``[B, T]`` int64 in ``[0, B·T)``.

    Returns:
        Rank of each token from 0, earlier positions first among equal scores, meaningless where not
        eligible; and the number of eligible tokens in its group, ``[B, T]`` int64 each.

    >>> every, one_group = torch.ones(1, 3, dtype=torch.bool), torch.zeros(1, 3, dtype=torch.long)
    >>> rank_in_group(torch.tensor([[3.0, 1.0, 3.0]]), every, one_group)[0]
    tensor([[1, 0, 2]])
    """
    shape, groups = groups.shape, groups.flatten()
    order, first, count = _grouped(scores.flatten(), eligible.flatten(), groups)
    place = torch.arange(len(order), device=order.device) - first[groups[order]]
    rank = torch.empty_like(order).scatter_(0, order, place)
    return rank.view(shape), count[groups].view(shape)


def draw_in_group(
    values: Tensor, eligible: Tensor, groups: Tensor, generator: torch.Generator
) -> Tensor:
    """Draw, for each token, the value of an eligible token of its group, with replacement.

    Args:
        values: Values ``[B, T]``, any dtype.
        eligible: Mask ``[B, T]`` bool of the tokens that may be drawn, uniformly.
        groups: Group numbers ``[B, T]`` int64 in ``[0, B·T)``.
        generator: Random number generator.

    Returns:
        ``[B, T]``, the dtype of the values; any value where no token of the group is eligible.

    >>> values, groups = torch.tensor([[4, 5, 6, 7]]), torch.tensor([[0, 0, 1, 1]])
    >>> draw_in_group(values, values % 2 > 0, groups, torch.Generator())
    tensor([[5, 5, 7, 7]])
    """
    shape, groups = groups.shape, groups.flatten()
    order, first, count = _grouped(torch.zeros_like(groups), eligible.flatten(), groups)
    drawn = torch.randint(2**62, groups.shape, generator=generator, device=groups.device)
    place = first[groups] + drawn % count[groups].clamp(min=1)
    return values.flatten()[order[place]].view(shape)


def _grouped(scores: Tensor, eligible: Tensor, groups: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Order tokens by group, eligible ones first and by score.

    Returns:
        The order; the place of the first token of each group in it; and how many of the group are
        eligible, ``[B·T]`` int64 each.
    """
    # Stable sorts from the least to the most significant key: score, then group and eligibility.
    order = scores.argsort(stable=True)
    order = order[(2 * groups + ~eligible)[order].argsort(stable=True)]
    size = torch.zeros_like(groups).scatter_add_(0, groups, torch.ones_like(groups))
    count = torch.zeros_like(groups).scatter_add_(0, groups, eligible.long())
    return order, size.cumsum(0) - size, count


@lru_cache(maxsize=64)
def ids_tensor(ids: tuple[int, ...], device: torch.device) -> Tensor:
    """Return token ids as a tensor; cached, because each copy to an accelerator blocks the host.

    >>> ids_tensor((1, 2), torch.device("cpu"))
    tensor([1, 2])
    """
    return torch.tensor(ids, dtype=torch.long, device=device)


def bernoulli(shape: Sequence[int], p: float, generator: torch.Generator) -> Tensor:
    """Draw a bool mask, each element true with probability ``p``, on the generator's device.

    >>> bernoulli([3], 1.0, torch.Generator().manual_seed(0))
    tensor([True, True, True])
    """
    return torch.rand(shape, generator=generator, device=generator.device) < p


def masked_mean(values: Tensor, mask: Tensor) -> Tensor:
    """Average the values where the mask is true; zero with a gradient if it is true nowhere.

    Args:
        values: Values of any shape, floating.
        mask: Mask of the same shape, bool.

    Returns:
        A scalar.

    >>> masked_mean(torch.tensor([1.0, 5.0]), torch.tensor([True, False]))
    tensor(1.)
    """
    return values.masked_fill(~mask, 0.0).sum() / mask.sum().clamp(min=1)
