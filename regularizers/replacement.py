"""Replacements of dropped input tokens."""

from typing import Literal

import torch
from torch import Tensor

from regularizers.functional import ids_tensor
from regularizers.training_step import Vocabulary

Replacement = Literal["zero", "mask_token", "random_token", "mean_embedding"]

NO_MASK_TOKEN = (
    "replacement: 'mask_token' needs a tokenizer with a mask token, and this one has none: "
    "use 'zero', 'random_token' or 'mean_embedding'"
)


def require_replacement(name: str, replacement: Replacement, vocabulary: Vocabulary) -> None:
    """Check that a vocabulary supports a replacement.

    Args:
        name: Name of the regularizer, for the error message.
        replacement: Replacement of a token.
        vocabulary: Vocabulary of the tokenizer.

    Raises:
        ValueError: If the replacement needs a mask token or an ordinary token, and there is none.

    >>> require_replacement("MIR", "random_token", Vocabulary(size=9, special_ids=(0,)))
    """
    if replacement == "mask_token" and vocabulary.mask_id is None:
        raise ValueError(f"{name} {NO_MASK_TOKEN}")
    ordinary = set(range(vocabulary.size)).difference(vocabulary.special_ids)
    if replacement == "random_token" and not ordinary:
        raise ValueError(
            f"{name}: expected a tokenizer with ordinary tokens to draw from, got "
            f"{vocabulary.size} ids, all special: use another tokenizer, or a method that draws "
            "no tokens"
        )


def replace_ids(
    input_ids: Tensor,
    dropped: Tensor,
    replacement: Replacement,
    vocabulary: Vocabulary,
    generator: torch.Generator,
) -> Tensor:
    """Return token ids in which dropped tokens are a mask token or a random ordinary token.

    Args:
        input_ids: Token ids ``[B, T]`` int64.
        dropped: Mask ``[B, T]`` bool.
        replacement: Replacement; ``zero`` and ``mean_embedding`` do not change the ids.
        vocabulary: Vocabulary with the mask id and the special ids, which are never drawn.
        generator: Random number generator.

    Returns:
        ``[B, T]`` int64, a new tensor if anything changes.

    Raises:
        ValueError: If the replacement is the mask token and the tokenizer has none.

    >>> vocabulary = Vocabulary(size=9, mask_id=7)
    >>> drop = torch.tensor([[False, True]])
    >>> replace_ids(torch.tensor([[3, 4]]), drop, "mask_token", vocabulary, torch.Generator())
    tensor([[3, 7]])
    """
    if replacement == "mask_token":
        if vocabulary.mask_id is None:
            raise ValueError(NO_MASK_TOKEN)
        return input_ids.masked_fill(dropped, vocabulary.mask_id)
    if replacement == "random_token":
        return torch.where(
            dropped, random_ordinary_ids(input_ids, vocabulary, generator), input_ids
        )
    return input_ids


def random_ordinary_ids(
    input_ids: Tensor, vocabulary: Vocabulary, generator: torch.Generator
) -> Tensor:
    """Draw ids uniformly from the vocabulary without its special ids, in the shape of the input.

    >>> drawn = random_ordinary_ids(torch.zeros(99), Vocabulary(3, (0, 2)), torch.Generator())
    >>> drawn.unique()
    tensor([1])
    """
    special_ids = sorted(set(vocabulary.special_ids) & set(range(vocabulary.size)))
    gaps = ids_tensor(
        tuple(special_id - index for index, special_id in enumerate(special_ids)), input_ids.device
    )
    drawn = torch.randint(
        vocabulary.size - len(special_ids),
        input_ids.shape,
        generator=generator,
        device=input_ids.device,
    )
    return drawn + torch.searchsorted(gaps, drawn, right=True)


def replace_embeddings(
    embeddings: Tensor, dropped: Tensor, replacement: Replacement, present: Tensor
) -> Tensor:
    """Return embeddings in which dropped tokens are zero or the batch's mean embedding.

    Args:
        embeddings: Embeddings ``[B, T, D]``, any floating dtype.
        dropped: Mask ``[B, T]`` bool.
        replacement: Replacement; ``mask_token`` and ``random_token`` do not change the embeddings.
        present: Mask ``[B, T]`` bool of the tokens that the mean is over.

    Returns:
        ``[B, T, D]``, same dtype, a new tensor if anything changes.

    >>> replace_embeddings(torch.ones(1, 1, 2), torch.tensor([[True]]), "zero", torch.ones(1, 1))
    tensor([[[0., 0.]]])
    """
    if replacement == "zero":
        return embeddings.masked_fill(dropped[..., None], 0)
    if replacement == "mean_embedding":
        share = present.float() / present.sum().clamp(min=1)
        mean = torch.einsum("bt,btd->d", share, embeddings.detach().float())
        return torch.where(dropped[..., None], mean.to(embeddings.dtype), embeddings)
    return embeddings
