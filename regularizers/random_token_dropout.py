"""Random token dropout, and controls for the effect of entropy."""

from typing import Literal

from regularizers.base import EntropySource
from regularizers.curricula import Curriculum
from regularizers.ranking import Scope
from regularizers.replacement import Replacement
from regularizers.token_dropout import Target, TokenDropout, require_choice

Selection = Literal["random", "low_entropy", "high_entropy"]
GUIDANCE: dict[Selection, float] = {"low_entropy": -1.0, "random": 0.0, "high_entropy": 1.0}


class RandomTokenDropout(TokenDropout):
    """Drop input tokens at random, or with any guidance by entropy at a matched rate.

    ``guidance`` ranks the n eligible tokens of a sequence, as in EntroDrop. The first of them are
    the candidates; each candidate is dropped with the probability γ of the curriculum:

        candidates = the first ⌊quantile · n⌋
        E[share dropped] = quantile · γ

    Labels are kept, the loss counts at all positions, and nothing is rescaled. With the
    ``quantile``, ``curriculum`` and ``replacement`` of an EntroDrop run, as many tokens are dropped
    as in that run. A difference between them is then due to *which* tokens are dropped.
    ``guidance: 1`` is the opposite control.

    Source:
        Gao et al. 2025, arXiv 2510.04071 (``guidance: 0``).

    Args:
        curriculum: Probability that a candidate is dropped, over training; a number is constant.
        select: Name of a guidance, for configs of earlier versions: ``random`` for 0,
            ``low_entropy`` for -1, ``high_entropy`` for 1; null for ``guidance``.
        quantile: Fraction of the eligible tokens that are candidates, in (0, 1]. The drop rate is
            this fraction times the probability.
        target: What is dropped: the ``input`` token, its ``loss``, or ``both``.
        replacement: Replacement of a dropped input: a ``zero`` vector, the ``mean_embedding`` of
            the tokens in the batch, the tokenizer's ``mask_token``, or an ordinary token: a
            ``random_token`` of the vocabulary, a ``unigram_token``, drawn by its frequency in the
            training text, or a ``document_token``, drawn from the same packed document.
        scope: Group in which tokens are ranked: each packed ``document``, each ``sequence`` (row of
            the batch), the whole ``batch``, or the distribution over the ``corpus``.
        entropy_source: Source of the entropies: ``last_epoch``, ``reference`` or ``online``, as in
            EntroDrop; unused if ``guidance`` is 0.
        guidance: Guidance by entropy, in [-1, 1]. 0: chance selects the candidates; -1: those of
            lowest entropy; 1: those of highest entropy; between them, both.

    Raises:
        ValueError: If a setting is out of range.

    >>> RandomTokenDropout(curriculum=0.3).requirements.entropy is None
    True
    """

    def __init__(
        self,
        curriculum: Curriculum | float = 0.3,
        select: Selection | None = None,
        quantile: float = 1.0,
        target: Target = "input",
        replacement: Replacement = "zero",
        scope: Scope = "sequence",
        entropy_source: EntropySource = "last_epoch",
        guidance: float = 0.0,
    ) -> None:
        if select is not None:
            require_choice("RandomTokenDropout select", select, Selection)
            if guidance not in (0, GUIDANCE[select]):
                raise ValueError(
                    f"RandomTokenDropout guidance: expected {GUIDANCE[select]:g}, which select "
                    f"{select!r} stands for, got {guidance}: remove select"
                )
            guidance = GUIDANCE[select]
        super().__init__(
            guidance=guidance,
            quantile=quantile,
            curriculum=curriculum,
            target=target,
            replacement=replacement,
            scope=scope,
            entropy_source=entropy_source,
        )
