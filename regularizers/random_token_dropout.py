"""Random token dropout, and controls for the effect of entropy."""

from regularizers.base import EntropySource
from regularizers.curricula import Curriculum
from regularizers.replacement import Replacement
from regularizers.token_dropout import Scope, Selection, Target, TokenDropout


class RandomTokenDropout(TokenDropout):
    """Drop input tokens at random, or by entropy at a matched rate.

    ``select`` ranks the n eligible tokens of a sequence. The first of them are the candidates; each
    candidate is dropped with the probability γ of the curriculum:

        candidates = the first ⌊quantile · n⌋
        E[share dropped] = quantile · γ

    Labels are kept, the loss counts at all positions, and nothing is rescaled. With the
    ``quantile`` and ``curriculum`` of an EntroDrop run, the same number of tokens is dropped as in
    that run. A difference between them is then due to *which* tokens are dropped. ``high_entropy``
    is the opposite control.

    Source:
        Gao et al. 2025, arXiv 2510.04071 (``select: random``).

    Args:
        curriculum: Probability that a candidate is dropped, over training; a number is constant.
        select: Candidates: a ``random`` subset, or the tokens of ``high_entropy`` or
            ``low_entropy``.
        quantile: Fraction of the eligible tokens that are candidates, in (0, 1]. The drop rate is
            this fraction times the probability.
        target: What is dropped: the ``input`` token, its ``loss``, or ``both``.
        replacement: Replacement of a dropped input: a ``zero`` vector, the tokenizer's
            ``mask_token``, a ``random_token`` of the vocabulary without special tokens, or the
            ``mean_embedding`` of the tokens in the batch.
        scope: Group in which tokens are ranked: each packed ``document``, each ``sequence`` (row of
            the batch), the whole ``batch``, or the distribution over the ``corpus``.
        entropy_source: Source of the entropies: ``last_epoch``, ``reference`` or ``online``, as in
            EntroDrop; unused if ``select`` is ``random``.

    Raises:
        ValueError: If a setting is out of range.

    >>> RandomTokenDropout(curriculum=0.3).requirements.entropy is None
    True
    """

    def __init__(
        self,
        curriculum: Curriculum | float = 0.3,
        select: Selection = "random",
        quantile: float = 1.0,
        target: Target = "input",
        replacement: Replacement = "zero",
        scope: Scope = "sequence",
        entropy_source: EntropySource = "last_epoch",
    ) -> None:
        super().__init__(
            select=select,
            quantile=quantile,
            curriculum=curriculum,
            target=target,
            replacement=replacement,
            scope=scope,
            entropy_source=entropy_source,
        )
