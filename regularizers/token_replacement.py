"""Token replacement: other tokens in the input, original tokens in the labels."""

from collections.abc import Sequence

from torch import Tensor

from regularizers.base import Regularizer, Requirements
from regularizers.curricula import Curriculum, as_curriculum, require_probability
from regularizers.functional import bernoulli
from regularizers.replacement import IdReplacement, replace_ids, require_replacement
from regularizers.token_dropout import require_choice
from regularizers.training_step import TrainingStep, Vocabulary


class TokenReplacement(Regularizer):
    """Replace input tokens by random tokens; labels do not change.

    Each input token, except special tokens and padding, is replaced with probability p. By default
    the new token is drawn uniformly from the vocabulary without its special tokens:

        x̃_t = u_t ~ U(V without special tokens)   with probability p, otherwise x_t
        L = −Σ_t ln p_θ(x_t | x̃_<t) / N

    The drawn token may equal the original: a fraction ``p·(1 − 1/|V|)`` of the tokens changes. The
    first token of a document is replaced like any other, unless it is special.

    Source:
        Chen et al. 2026, arXiv 2606.16246, random token replacement (``random_token``); Xie et al.
        2017, arXiv 1703.02573, unigram noising (``unigram_token``) and blank noising
        (``mask_token``).

    Args:
        curriculum: Replacement probability p, over training; a number is constant.
        replacement: New token: a ``random_token`` of the vocabulary, a ``unigram_token``, drawn by
            its frequency in the training text, a ``document_token``, drawn from the same packed
            document, or the tokenizer's ``mask_token``.

    Raises:
        ValueError: If a setting is out of range.

    >>> TokenReplacement().curriculum(0.5)
    0.05
    """

    def __init__(
        self,
        curriculum: Curriculum | float = 0.05,
        replacement: IdReplacement = "random_token",
    ) -> None:
        super().__init__()
        require_choice("TokenReplacement replacement", replacement, IdReplacement)
        self.curriculum = as_curriculum(curriculum)
        require_probability("TokenReplacement curriculum", self.curriculum)
        self.replacement: IdReplacement = replacement

    @property
    def requirements(self) -> Requirements:
        """Token counts, if they decide what is drawn."""
        return Requirements(token_counts=self.replacement == "unigram_token")

    def check(self, vocabulary: Vocabulary, others: Sequence[Regularizer]) -> None:
        """Reject a replacement that the tokenizer does not support."""
        require_replacement("TokenReplacement", self.replacement, vocabulary)

    def on_input_ids(self, input_ids: Tensor, step: TrainingStep) -> Tensor:
        """Replace tokens at random."""
        p, generator = self.curriculum(step.progress), step.generator()
        replaced = step.alterable & bernoulli(input_ids.shape, p, generator)
        step.log("drop_rate", replaced.sum() / step.alterable.sum().clamp(min=1))
        return replace_ids(input_ids, replaced, self.replacement, step, generator)
