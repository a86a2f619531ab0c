"""Embedding dropout: by vocabulary row (AWD-LSTM), by position, or by element."""

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor

from regularizers.base import Regularizer
from regularizers.curricula import Curriculum, as_curriculum, require_probability
from regularizers.functional import bernoulli
from regularizers.token_dropout import require_choice
from regularizers.training_step import TrainingStep

Granularity = Literal["row", "position", "element"]


def embedding_drop_mask(
    embeddings: Tensor,
    input_ids: Tensor,
    granularity: Granularity,
    p: float,
    vocabulary_size: int,
    generator: torch.Generator,
) -> Tensor:
    """Draw a mask of the parts of the embeddings to drop.

    Args:
        embeddings: Embeddings ``[B, T, D]``.
        input_ids: Token ids ``[B, T]`` int64.
        granularity: ``row`` draws once per vocabulary entry for the whole batch, ``position`` once
            per token, ``element`` once per number.
        p: Drop probability.
        vocabulary_size: Vocabulary size, V.
        generator: Random number generator.

    Returns:
        Mask, bool, ``[B, T, 1]`` or ``[B, T, D]``.

    >>> ids = torch.tensor([[5, 5, 5]])
    >>> draw = torch.Generator().manual_seed(0)
    >>> embedding_drop_mask(torch.ones(1, 3, 2), ids, "row", 0.5, 9, draw).unique().numel()
    1
    """
    if granularity == "row":
        return bernoulli([vocabulary_size], p, generator)[input_ids][..., None]
    shape: Sequence[int] = (*input_ids.shape, 1) if granularity == "position" else embeddings.shape
    return bernoulli(shape, p, generator)


class EmbeddingDropout(Regularizer):
    """Zero parts of the embeddings and scale the rest by 1/(1−p).

    With m drawn once per vocabulary entry, token or number, an embedding e becomes:

        e · m / (1 − p)    m ~ Bernoulli(1 − p)

    ``row`` is the embedding dropout of AWD-LSTM: a vocabulary entry is dropped everywhere in the
    batch. Special tokens and padding are neither dropped nor scaled.

    Source:
        Merity et al. 2017, arXiv 1708.02182, section 4.3.

    Args:
        curriculum: Drop probability p, over training; a number is constant.
        granularity: What is dropped at once: ``row`` (a vocabulary entry throughout the batch),
            ``position`` (a token) or ``element`` (a single number).

    Raises:
        ValueError: If a setting is out of range.

    >>> EmbeddingDropout(0.2).curriculum(0.5)
    0.2
    """

    def __init__(
        self,
        curriculum: Curriculum | float = 0.1,
        granularity: Granularity = "row",
    ) -> None:
        super().__init__()
        self.curriculum = as_curriculum(curriculum)
        require_probability("EmbeddingDropout curriculum", self.curriculum)
        require_choice("EmbeddingDropout granularity", granularity, Granularity)
        self.granularity: Granularity = granularity

    def on_embeddings(self, embeddings: Tensor, step: TrainingStep) -> Tensor:
        """Drop parts of the embeddings and scale the rest."""
        p = self.curriculum(step.progress)
        alterable = step.alterable[..., None]
        dropped = alterable & embedding_drop_mask(
            embeddings, step.input_ids, self.granularity, p, step.vocabulary.size, step.generator()
        )
        step.log("strength", torch.tensor(p))
        share_dropped = dropped.float().mean(-1)
        step.log("drop_rate", share_dropped.sum() / step.alterable.sum().clamp(min=1))
        scaled = torch.where(alterable, embeddings / max(1 - p, 1e-8), embeddings)
        return scaled.masked_fill(dropped, 0)
