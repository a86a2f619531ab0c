"""Token dropout: the base class of EntroDrop and its random controls."""

from collections.abc import Sequence
from typing import Any, Literal, get_args

import torch
from torch import Tensor

from regularizers.base import EntropySource, Regularizer, Requirements
from regularizers.curricula import Curriculum, as_curriculum, require_probability
from regularizers.functional import (
    bernoulli,
    is_document_start,
    is_lowest_share,
    number_documents,
)
from regularizers.replacement import (
    Replacement,
    replace_embeddings,
    replace_ids,
    require_replacement,
)
from regularizers.training_step import TrainingStep, Vocabulary

Selection = Literal["random", "low_entropy", "high_entropy"]
Target = Literal["input", "loss", "both"]
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


def require_choice(name: str, value: str, choices: Any) -> None:
    """Check that a value is one of the choices of a ``Literal``.

    >>> require_choice("target", "input", Target)
    """
    if value not in get_args(choices):
        raise ValueError(f"{name}: expected one of {', '.join(get_args(choices))}, got {value!r}")


class TokenDropout(Regularizer):
    """Base class: drop tokens, selected by entropy or at random, with probability γ(progress).

    Within each group of ``scope``, the candidates are the ``⌊quantile · n⌋`` eligible tokens that
    ``select`` ranks first. Each is dropped with probability γ, redrawn in each step. The
    expected rate is quantile·γ for every ``select``, so two methods that differ only in it are
    matched. Special tokens, padding and the first token of a document are never eligible, nor are
    tokens whose entropy is needed and unknown.

    Args:
        select: Which tokens are the candidates.
        quantile: Fraction of the eligible tokens that are candidates, in (0, 1].
        curriculum: Probability γ that a candidate is dropped, over training; a number is constant.
        target: What is dropped.
        replacement: Replacement of a dropped input.
        scope: Group in which tokens are ranked.
        entropy_source: Source of the entropies.

    Raises:
        ValueError: If a setting is out of range.
    """

    def __init__(
        self,
        *,
        select: Selection,
        quantile: float,
        curriculum: Curriculum | float,
        target: Target,
        replacement: Replacement,
        scope: Scope,
        entropy_source: EntropySource,
    ) -> None:
        super().__init__()
        name = type(self).__name__
        if not 0 < quantile <= 1:
            raise ValueError(f"{name} quantile: expected a share in (0, 1], got {quantile}")
        require_choice(f"{name} select", select, Selection)
        require_choice(f"{name} target", target, Target)
        require_choice(f"{name} replacement", replacement, Replacement)
        require_choice(f"{name} scope", scope, Scope)
        require_choice(f"{name} entropy_source", entropy_source, EntropySource)
        if scope == "corpus" and select != "random" and entropy_source == "online":
            raise ValueError(
                f"{name} scope: 'corpus' needs the entropies of all tokens at once, which "
                "entropy_source 'online' does not provide: use 'last_epoch' or 'reference', or "
                "scope 'sequence'"
            )
        self.curriculum = as_curriculum(curriculum)
        require_probability(f"{name} curriculum", self.curriculum)
        self.select = select
        self.quantile = quantile
        self.target = target
        self.replacement: Replacement = replacement
        self.scope: Scope = scope
        self.entropy_source = entropy_source

    @property
    def requirements(self) -> Requirements:
        """Entropies of the inputs, unless the selection is random."""
        return Requirements(entropy=None if self.select == "random" else self.entropy_source)

    def check(self, vocabulary: Vocabulary, others: Sequence[Regularizer]) -> None:
        """Reject a replacement that the tokenizer does not support."""
        require_replacement(type(self).__name__, self.replacement, vocabulary)

    def on_input_ids(self, input_ids: Tensor, step: TrainingStep) -> Tensor:
        """Replace the ids of dropped tokens, if the replacement is an id."""
        if self.target == "loss" or self.replacement not in ("mask_token", "random_token"):
            return input_ids
        generator = step.generator()
        dropped = self.drop_mask(step, generator)
        return replace_ids(input_ids, dropped, self.replacement, step.vocabulary, generator)

    def on_embeddings(self, embeddings: Tensor, step: TrainingStep) -> Tensor:
        """Replace the embeddings of dropped tokens, if the replacement is an embedding."""
        if self.target == "loss" or self.replacement not in ("zero", "mean_embedding"):
            return embeddings
        dropped = self.drop_mask(step, step.generator())
        return replace_embeddings(embeddings, dropped, self.replacement, step.document_ids >= 0)

    def on_token_weight(self, token_weight: Tensor, step: TrainingStep) -> Tensor:
        """Exclude dropped tokens from the loss and its denominator, if the loss is a target."""
        if self.target == "input":
            return token_weight
        return token_weight.masked_fill(self.drop_mask(step, step.generator()), 0.0)

    def drop_mask(self, step: TrainingStep, generator: torch.Generator) -> Tensor:
        """Return which tokens are dropped in this step, ``[B, T]`` bool."""
        strength = self.curriculum(step.progress)
        candidates = self._candidates(step, generator)
        dropped = candidates & bernoulli(candidates.shape, strength, generator)
        step.log("strength", torch.tensor(strength))
        step.log("drop_rate", dropped.sum() / step.alterable.sum().clamp(min=1))
        return dropped

    def _candidates(self, step: TrainingStep, generator: torch.Generator) -> Tensor:
        scores = self._scores(step, generator)
        eligible = step.alterable & ~is_document_start(step.document_ids) & ~scores.isnan()
        if self.scope == "corpus":
            return eligible & (scores <= self._corpus_threshold(step))
        groups = ranking_groups(step.document_ids, self.scope)
        return is_lowest_share(scores, eligible, groups, self.quantile)

    def _scores(self, step: TrainingStep, generator: torch.Generator) -> Tensor:
        if self.select == "random":
            shape, device = step.input_ids.shape, step.input_ids.device
            return torch.rand(shape, generator=generator, device=device)
        assert step.entropy is not None, "Regularizers refuses a step without required entropies"
        return step.entropy if self.select == "low_entropy" else -step.entropy

    def _corpus_threshold(self, step: TrainingStep) -> Tensor | float:
        if self.select == "random":
            return self.quantile
        if step.corpus_entropy is None:
            raise ValueError(
                f"{type(self).__name__} scope: 'corpus' needs TrainingStep.corpus_entropy, "
                "got None: provide quantiles of the entropies of the corpus, or use scope "
                "'sequence'"
            )
        if self.select == "low_entropy":
            return torch.quantile(step.corpus_entropy, self.quantile)
        return torch.quantile(-step.corpus_entropy, self.quantile)
