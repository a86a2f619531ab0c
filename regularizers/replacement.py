"""Replacements of dropped input tokens."""

from typing import Literal

import torch
from torch import Tensor

from regularizers.functional import draw_in_group, ids_tensor, number_documents
from regularizers.training_step import TrainingStep, Vocabulary

EmbeddingReplacement = Literal["zero", "mean_embedding"]
IdReplacement = Literal["mask_token", "random_token", "unigram_token", "document_token"]
Replacement = Literal[EmbeddingReplacement, IdReplacement]

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
    draws = replacement in ("random_token", "unigram_token", "document_token")
    if draws and len(_special_ids(vocabulary)) == vocabulary.size:
        raise ValueError(
            f"{name}: expected a tokenizer with ordinary tokens to draw from, got "
            f"{vocabulary.size} ids, all special: use another tokenizer, or a method that draws "
            "no tokens"
        )


def replace_ids(
    input_ids: Tensor,
    dropped: Tensor,
    replacement: Replacement,
    step: TrainingStep,
    generator: torch.Generator,
) -> Tensor:
    """Return token ids in which dropped tokens are a mask token or a drawn ordinary token.

    Args:
        input_ids: Token ids ``[B, T]`` int64.
        dropped: Mask ``[B, T]`` bool.
        replacement: Replacement; ``zero`` and ``mean_embedding`` do not change the ids.
        step: The training step, with the vocabulary and what tokens are drawn from. Special tokens
            and padding are never drawn.
        generator: Random number generator.

    Returns:
        ``[B, T]`` int64, a new tensor if anything changes.

    Raises:
        ValueError: If the replacement is the mask token and the tokenizer has none.

    Source:
        ``unigram_token``: Xie et al. 2017, arXiv 1703.02573, unigram noising.

    >>> from regularizers.testing import make_step
    >>> step = make_step(1, 2)
    >>> drop = torch.tensor([[False, True]])
    >>> replace_ids(torch.tensor([[3, 4]]), drop, "mask_token", step, torch.Generator())
    tensor([[ 3, 63]])
    """
    if replacement == "mask_token":
        if step.vocabulary.mask_id is None:
            raise ValueError(NO_MASK_TOKEN)
        return input_ids.masked_fill(dropped, step.vocabulary.mask_id)
    if replacement == "random_token":
        drawn = random_ordinary_ids(input_ids, step.vocabulary, generator)
    elif replacement == "unigram_token":
        assert step.token_counts is not None, "Regularizers refuses a step without counts"
        drawn = unigram_ids(step.token_counts, input_ids, step.vocabulary, generator)
    elif replacement == "document_token":
        documents = number_documents(step.document_ids)
        drawn = draw_in_group(step.input_ids, step.alterable, documents, generator)
    else:
        return input_ids
    return torch.where(dropped, drawn, input_ids)


def random_ordinary_ids(
    input_ids: Tensor, vocabulary: Vocabulary, generator: torch.Generator
) -> Tensor:
    """Draw ids uniformly from the vocabulary without its special ids, in the shape of the input.

    >>> drawn = random_ordinary_ids(torch.zeros(99), Vocabulary(3, (0, 2)), torch.Generator())
    >>> drawn.unique()
    tensor([1])
    """
    special_ids = _special_ids(vocabulary)
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


def unigram_ids(
    token_counts: Tensor, input_ids: Tensor, vocabulary: Vocabulary, generator: torch.Generator
) -> Tensor:
    """Draw ids in proportion to their counts, without special ids, in the shape of the input.

    >>> counts = torch.tensor([5, 0, 2])
    >>> unigram_ids(counts, torch.zeros(99), Vocabulary(3, (0,)), torch.Generator()).unique()
    tensor([2])
    """
    special_ids = ids_tensor(_special_ids(vocabulary), input_ids.device)
    last = token_counts.index_fill(0, special_ids, 0).cumsum(0)
    place = torch.randint(2**62, input_ids.shape, generator=generator, device=input_ids.device)
    return torch.searchsorted(last, place % last[-1].clamp(min=1), right=True)


def replace_embeddings(
    embeddings: Tensor, dropped: Tensor, replacement: Replacement, present: Tensor
) -> Tensor:
    """Return embeddings in which dropped tokens are zero or the batch's mean embedding.

    Args:
        embeddings: Embeddings ``[B, T, D]``, any floating dtype.
        dropped: Mask ``[B, T]`` bool.
        replacement: Replacement; those by an id do not change the embeddings.
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


def _special_ids(vocabulary: Vocabulary) -> tuple[int, ...]:
    return tuple(sorted({each for each in vocabulary.special_ids if 0 <= each < vocabulary.size}))
