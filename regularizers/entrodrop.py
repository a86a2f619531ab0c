"""EntroDrop: drop predictable tokens, increasingly often during training."""

from regularizers.base import EntropySource
from regularizers.curricula import Curriculum, Sigmoid
from regularizers.ranking import Scope
from regularizers.replacement import Replacement
from regularizers.token_dropout import Target, TokenDropout


class EntroDrop(TokenDropout):
    """Drop low-entropy input tokens with a probability that follows a curriculum.

    Token x_t is a candidate if H_t = −Σ_v p(v | x_<t) ln p(v | x_<t) is among the lowest
    ``quantile`` of its sequence. Each candidate is dropped with probability γ(progress):

        γ(p) = max / (1 + exp(−steepness · (p − midpoint)))

    ``guidance`` g says how much entropy selects the candidates: those of lowest ``|g|·r +
    (1 − |g|)·u``, where r is the percentile of H_t (of −H_t for g > 0) and u ~ U(0, 1) is redrawn
    in each step. The number of candidates and the drop rate do not depend on it.

    The abstract of the paper does not specify how a token is masked, which model's entropy is used,
    or the schedule. Each of these is an option; ``docs/method.md`` gives the defaults and the
    reasons. Validation on three corpora chose the replacement and the mean rate.

    Source:
        Wang et al. 2025, arXiv 2512.23422, abstract.

    Args:
        quantile: Fraction of the eligible tokens of a sequence that are candidates, in (0, 1].
        curriculum: Probability γ that a candidate is dropped, over training; a number is constant.
        target: What is dropped. ``input``: the token is hidden from the model, which must still
            predict it; the loss is not rescaled. ``loss``: the token stays in the input, but its
            loss is excluded from the sum and the denominator. ``both``: input and loss.
        replacement: Replacement of a dropped input: a ``random_token`` of the vocabulary, a
            ``unigram_token``, drawn by its frequency in the training text, a ``document_token``,
            drawn from the same packed document, the tokenizer's ``mask_token``, a ``zero`` vector,
            or the ``mean_embedding`` of the tokens in the batch.
        scope: Group in which tokens are ranked: each packed ``document``, each ``sequence`` (row of
            the batch), the whole ``batch``, or the distribution over the ``corpus``.
        entropy_source: Source of the entropies. ``last_epoch``: recorded in the training pass of
            the previous epoch, at no cost; no token is dropped in the first epoch. ``reference``:
            computed once, on clean input, by a frozen model. ``online``: computed in each step by a
            second, clean forward pass of the model itself.
        guidance: Guidance by entropy, in [-1, 1]. -1: candidates are the tokens of lowest entropy;
            0: chance selects, and no entropies are needed; 1: those of highest entropy.

    Raises:
        ValueError: If a setting is out of range.

    >>> EntroDrop(quantile=0.3, curriculum=Sigmoid(max=0.9)).requirements.entropy
    'last_epoch'
    """

    def __init__(
        self,
        quantile: float = 0.5,
        curriculum: Curriculum | float = Sigmoid(max=0.4, midpoint=0.5, steepness=10.0),  # noqa: B008
        target: Target = "input",
        replacement: Replacement = "random_token",
        scope: Scope = "sequence",
        entropy_source: EntropySource = "last_epoch",
        guidance: float = -1.0,
    ) -> None:
        super().__init__(
            guidance=guidance,
            quantile=quantile,
            curriculum=curriculum,
            target=target,
            replacement=replacement,
            scope=scope,
            entropy_source=entropy_source,
        )
