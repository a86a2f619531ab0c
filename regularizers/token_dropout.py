"""How tokens are dropped, whichever are chosen: shared by EntroDrop and its random controls."""

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
    """Number the groups within which tokens are ranked, ``[B, T]`` int64 in ``[0, B·T)``.

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
    """Refuse a value that is not one of a ``Literal``'s.

    >>> require_choice("target", "input", Target)
    """
    if value not in get_args(choices):
        raise ValueError(f"{name}: expected one of {', '.join(get_args(choices))}, got {value!r}")


class TokenDropout(Regularizer):
    """Base class: drop, with probability γ(progress), tokens chosen by their entropy or by chance.

    Within each group of ``scope``, the candidates are the ``⌊quantile · n⌋`` eligible tokens that
    ``select`` ranks first; each is dropped with probability γ, redrawn every step. So the expected
    rate is quantile·γ whatever ``select`` is, and two methods that differ in it alone are matched.
    Special tokens, padding and the first token of a document are never eligible, nor are tokens
    whose entropy is needed and unknown.

    Args:
        select: which tokens are the candidates.
        quantile: share of the eligible tokens that are candidates, in (0, 1].
        curriculum: probability γ that a candidate is dropped, over training; a number is constant.
        target: what is dropped.
        replacement: what stands for a dropped input.
        scope: among which tokens the candidates are ranked.
        entropy_source: where entropies come from.

    Raises:
        ValueError: if a setting is out of range.
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
                f"{name} scope: 'corpus' ranks against the entropies of all tokens, which "
                "entropy_source 'online' never has at once: use 'last_epoch' or 'reference', or "
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
        """Entropies of the inputs, unless chance selects."""
        return Requirements(entropy=None if self.select == "random" else self.entropy_source)

    def check(self, vocabulary: Vocabulary, others: Sequence[Regularizer]) -> None:
        """Refuse a replacement that the tokenizer does not have."""
        require_replacement(type(self).__name__, self.replacement, vocabulary)

    def on_input_ids(self, input_ids: Tensor, step: TrainingStep) -> Tensor:
        """Replace dropped tokens by other ids, if that is the replacement."""
        if self.target == "loss" or self.replacement not in ("mask_token", "random_token"):
            return input_ids
        generator = step.generator()
        dropped = self.drop_mask(step, generator)
        return replace_ids(input_ids, dropped, self.replacement, step.vocabulary, generator)

    def on_embeddings(self, embeddings: Tensor, step: TrainingStep) -> Tensor:
        """Replace the embeddings of dropped tokens, if that is the replacement."""
        if self.target == "loss" or self.replacement not in ("zero", "mean_embedding"):
            return embeddings
        dropped = self.drop_mask(step, step.generator())
        return replace_embeddings(embeddings, dropped, self.replacement, step.document_ids >= 0)

    def on_token_weight(self, token_weight: Tensor, step: TrainingStep) -> Tensor:
        """Take dropped tokens out of the loss and of its denominator, if they are the target."""
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
                "got None: provide quantiles of the corpus' entropies, or use scope 'sequence'"
            )
        if self.select == "low_entropy":
            return torch.quantile(step.corpus_entropy, self.quantile)
        return torch.quantile(-step.corpus_entropy, self.quantile)
