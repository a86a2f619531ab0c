"""Random token dropout, and the controls that show whether entropy matters."""

from regularizers.base import EntropySource
from regularizers.curricula import Curriculum
from regularizers.replacement import Replacement
from regularizers.token_dropout import Scope, Selection, Target, TokenDropout


class RandomTokenDropout(TokenDropout):
    """Drop input tokens that are chosen by chance, or by entropy at a matched rate.

    Of the n tokens of a sequence that may be dropped, ``select`` ranks some first; each of these
    candidates is dropped with the probability γ that the curriculum gives:

        candidates = the first ⌊quantile · n⌋
        E[share dropped] = quantile · γ

    Labels are kept, the loss counts at all positions and nothing is rescaled. With the
    ``quantile`` and ``curriculum`` of an EntroDrop run, as many tokens are dropped as in that run,
    so a difference between them is due to *which* tokens are dropped; ``high_entropy`` is the
    opposite control.

    Source:
        Gao et al. 2025, arXiv 2510.04071 (``select: random``).

    Args:
        curriculum: probability that a candidate is dropped, over training; a number is constant.
        select: the candidates are a ``random`` subset, or those of ``high_entropy`` or
            ``low_entropy``.
        quantile: share of the eligible tokens that are candidates, in (0, 1]; the drop rate is
            this share times the probability.
        target: drop the ``input`` token, its ``loss``, or ``both``.
        replacement: what stands for a dropped input: a ``zero`` vector, the tokenizer's
            ``mask_token``, a ``random_token`` of the vocabulary without special tokens, or the
            ``mean_embedding`` of the batch's tokens.
        scope: candidates are taken per packed ``document``, per ``sequence`` (row of the batch),
            from the whole ``batch``, or against the distribution over the ``corpus``.
        entropy_source: ``last_epoch``, ``reference`` or ``online``, as in EntroDrop; unused if
            ``select`` is ``random``.

    Raises:
        ValueError: if a setting is out of range.

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
