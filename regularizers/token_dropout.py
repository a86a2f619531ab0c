"""Token dropout: the base class of EntroDrop and its random controls."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Literal, get_args

import torch
from torch import Tensor

from regularizers.base import EntropySource, Regularizer, Requirements
from regularizers.curricula import Curriculum, as_curriculum, require_probability
from regularizers.functional import bernoulli, is_document_start, is_lowest_share
from regularizers.ranking import (
    Scope,
    blended_quantile,
    percentile_in_corpus,
    percentile_in_group,
    ranking_groups,
)
from regularizers.replacement import (
    EmbeddingReplacement,
    IdReplacement,
    Replacement,
    replace_embeddings,
    replace_ids,
    require_replacement,
)
from regularizers.training_step import TrainingStep, Vocabulary

Target = Literal["input", "loss", "both"]


def require_choice(name: str, value: str, choices: Any) -> None:
    """Check that a value is one of the choices of a ``Literal``.

    >>> require_choice("target", "input", Target)
    """
    if value not in get_args(choices):
        raise ValueError(f"{name}: expected one of {', '.join(get_args(choices))}, got {value!r}")


class TokenDropout(Regularizer):
    """Base class: drop tokens, selected by entropy, chance or both, with probability γ(progress).

    Within each group of ``scope``, the candidates are the ``⌊quantile · n⌋`` eligible tokens that
    ``guidance`` ranks first. Each is dropped with probability γ, redrawn in each step. The expected
    drop rate, quantile·γ, does not depend on guidance: methods that differ only in it are matched.

    With guidance g, the rank of a token is that of the score ``|g|·r + (1 − |g|)·u``. Here r is the
    percentile of its entropy in the group, from the lowest for g < 0 and from the highest for
    g > 0, and u is drawn uniformly in each step. Special tokens, padding and the first token of a
    document are never eligible, nor are tokens of unknown entropy unless g is 0.

    Args:
        guidance: Guidance g by entropy, in [-1, 1].
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
        guidance: float,
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
        if not -1 <= guidance <= 1:
            raise ValueError(
                f"{name} guidance: expected a number from -1 (lowest entropy) over 0 (chance) to "
                f"1 (highest entropy), got {guidance}"
            )
        require_choice(f"{name} target", target, Target)
        require_choice(f"{name} replacement", replacement, Replacement)
        require_choice(f"{name} scope", scope, Scope)
        require_choice(f"{name} entropy_source", entropy_source, EntropySource)
        if scope == "corpus" and guidance != 0 and entropy_source == "online":
            raise ValueError(
                f"{name} scope: 'corpus' needs the entropies of all tokens at once, which "
                "entropy_source 'online' does not provide: use 'last_epoch' or 'reference', or "
                "scope 'sequence'"
            )
        self.curriculum = as_curriculum(curriculum)
        require_probability(f"{name} curriculum", self.curriculum)
        self.guidance = guidance
        self.quantile = quantile
        self.target = target
        self.replacement: Replacement = replacement
        self.scope: Scope = scope
        self.entropy_source = entropy_source

    @property
    def requirements(self) -> Requirements:
        """Entropies of the inputs unless chance selects; counts for one replacement."""
        return Requirements(
            entropy=None if self.guidance == 0 else self.entropy_source,
            token_counts=self.target != "loss" and self.replacement == "unigram_token",
        )

    def check(self, vocabulary: Vocabulary, others: Sequence[Regularizer]) -> None:
        """Reject a replacement that the tokenizer does not support."""
        require_replacement(type(self).__name__, self.replacement, vocabulary)

    def on_input_ids(self, input_ids: Tensor, step: TrainingStep) -> Tensor:
        """Replace the ids of dropped tokens, if the replacement is an id."""
        if self.target == "loss" or self.replacement not in get_args(IdReplacement):
            return input_ids
        generator = step.generator()
        dropped = self.drop_mask(step, generator)
        return replace_ids(input_ids, dropped, self.replacement, step, generator)

    def on_embeddings(self, embeddings: Tensor, step: TrainingStep) -> Tensor:
        """Replace the embeddings of dropped tokens, if the replacement is an embedding."""
        if self.target == "loss" or self.replacement not in get_args(EmbeddingReplacement):
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
        eligible = step.alterable & ~is_document_start(step.document_ids)
        if self.guidance != 0:
            eligible = eligible & ~self._lowest_first(step.entropy).isnan()
        if self.scope == "corpus":
            return eligible & self._is_low_in_corpus(step, generator)
        groups = ranking_groups(step.document_ids, self.scope)
        percentile = partial(percentile_in_group, eligible=eligible, groups=groups)
        scores = self._scores(step, generator, percentile)
        return is_lowest_share(scores, eligible, groups, self.quantile)

    def _is_low_in_corpus(self, step: TrainingStep, generator: torch.Generator) -> Tensor:
        def percentile(entropy: Tensor) -> Tensor:
            return percentile_in_corpus(entropy, self._corpus_quantiles(step))

        scores, weight = self._scores(step, generator, percentile), abs(self.guidance)
        if weight == 1:
            return scores <= torch.quantile(self._corpus_quantiles(step), self.quantile)
        return scores <= blended_quantile(self.quantile, weight)

    def _scores(
        self,
        step: TrainingStep,
        generator: torch.Generator,
        percentile: Callable[[Tensor], Tensor],
    ) -> Tensor:
        """Return scores by which the lowest are the candidates, ``[B, T]``."""
        weight = abs(self.guidance)
        if weight == 1:
            return self._lowest_first(step.entropy)
        shape, device = step.input_ids.shape, step.input_ids.device
        chance = torch.rand(shape, generator=generator, device=device)
        if weight == 0:
            return chance
        return weight * percentile(self._lowest_first(step.entropy)) + (1 - weight) * chance

    def _lowest_first(self, entropy: Tensor | None) -> Tensor:
        assert entropy is not None, "Regularizers refuses a step without required entropies"
        return entropy if self.guidance < 0 else -entropy

    def _corpus_quantiles(self, step: TrainingStep) -> Tensor:
        if step.corpus_entropy is None:
            raise ValueError(
                f"{type(self).__name__} scope: 'corpus' needs TrainingStep.corpus_entropy, "
                "got None: provide quantiles of the entropies of the corpus, or use scope "
                "'sequence'"
            )
        return self._lowest_first(step.corpus_entropy).sort().values
