"""EntroDrop: drop predictable tokens, ever more of them as training goes on."""

from regularizers.base import EntropySource
from regularizers.curricula import Curriculum, Sigmoid
from regularizers.replacement import Replacement
from regularizers.token_dropout import Scope, Target, TokenDropout


class EntroDrop(TokenDropout):
    """Drop low-entropy input tokens with a probability that follows a curriculum.

    Token x_t is a candidate if H_t = −Σ_v p(v | x_<t) ln p(v | x_<t) is among the lowest
    ``quantile`` of its sequence; each candidate is dropped with probability γ(progress):

        γ(p) = max / (1 + exp(−steepness · (p − midpoint)))

    The abstract of the paper leaves open what a masked token is, which model's entropy counts and
    how the schedule runs; every such reading is an option here; ``docs/method.md`` tells which is
    the default and why.

    Source:
        Wang et al. 2025, arXiv 2512.23422, abstract.

    Args:
        quantile: share of a sequence's eligible tokens that count as low-entropy, in (0, 1].
        curriculum: probability γ that a low-entropy token is dropped, over training; a number
            means a constant probability.
        target: what is dropped. ``input``: the model does not see the token but must still predict
            it, and the loss is not rescaled; ``loss``: the token is seen but its loss does not
            count, nor does it in the denominator; ``both``.
        replacement: what stands for a dropped input: a ``zero`` vector, the tokenizer's
            ``mask_token``, a ``random_token`` of the vocabulary without special tokens, or the
            ``mean_embedding`` of the batch's tokens.
        scope: tokens are ranked within each packed ``document``, each ``sequence`` (row of the
            batch), the whole ``batch``, or against the distribution over the ``corpus``.
        entropy_source: ``last_epoch``: recorded in the ordinary training pass of the epoch before,
            free, and no token is dropped in the first epoch; ``reference``: computed once, on
            clean input, by a frozen model; ``online``: by a second, clean forward pass of the model
            itself, each step.

    Raises:
        ValueError: if a setting is out of range.

    >>> EntroDrop(quantile=0.3, curriculum=Sigmoid(max=0.9)).requirements.entropy
    'last_epoch'
    """

    def __init__(
        self,
        quantile: float = 0.5,
        curriculum: Curriculum | float = Sigmoid(max=0.5, midpoint=0.5, steepness=10.0),  # noqa: B008
        target: Target = "input",
        replacement: Replacement = "zero",
        scope: Scope = "sequence",
        entropy_source: EntropySource = "last_epoch",
    ) -> None:
        super().__init__(
            select="low_entropy",
            quantile=quantile,
            curriculum=curriculum,
            target=target,
            replacement=replacement,
            scope=scope,
            entropy_source=entropy_source,
        )
