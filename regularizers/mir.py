"""Masked-input regularization: predict the same text from a masked copy too."""

from collections.abc import Sequence
from dataclasses import replace
from functools import partial

import torch
from torch import Tensor

from regularizers.base import Regularizer, Requirements
from regularizers.curricula import Curriculum, as_curriculum
from regularizers.functional import document_positions
from regularizers.outputs import Outputs, TokenLoss
from regularizers.replacement import (
    Replacement,
    replace_embeddings,
    replace_ids,
    require_replacement,
)
from regularizers.token_dropout import require_choice
from regularizers.training_step import TrainingStep, Vocabulary


def masked_inputs(
    alterable: Tensor,
    document_ids: Tensor,
    max_share: float,
    kept_prefix: int,
    generator: torch.Generator,
) -> Tensor:
    """Draw the tokens to mask: in each row with a probability of its own, r ~ U(0, max_share).

    Args:
        alterable: Mask ``[B, T]`` bool of the tokens that may be masked.
        document_ids: Document numbers ``[B, T]`` int64, -1 for padding.
        max_share: Largest mask probability.
        kept_prefix: Number of tokens at the start of each packed document that are never masked.
        generator: Random number generator.

    Returns:
        ``[B, T]`` bool.

    >>> alterable, document_ids = torch.ones(1, 9, dtype=torch.bool), torch.zeros(1, 9).long()
    >>> draw = torch.Generator().manual_seed(0)
    >>> masked_inputs(alterable, document_ids, 0.5, 8, draw)[0, :8].any()
    tensor(False)
    """
    rows, length = alterable.shape
    share = max_share * torch.rand((rows, 1), generator=generator, device=alterable.device)
    drawn = torch.rand((rows, length), generator=generator, device=alterable.device) < share
    return alterable & drawn & (document_positions(document_ids) >= kept_prefix)


class MIR(Regularizer):
    """Add the loss of a second pass with randomly masked input.

    In each row of the batch, input tokens are masked with probability r, redrawn in each step.
    The model predicts every token from the remaining tokens before it, in addition to the ordinary
    pass:

        L = Σ_t (−ln p_θ(x_t | x_<t) − λ·ln p_θ(x_t | mask(x_<t))) / N,   r ~ U(0, ½)

    Both losses are of the same tokens, with the same weights: a token that another regularizer
    excludes is excluded from both. The paper masks by a new token; here a zero vector is the
    default, because few tokenizers have a mask token. Special tokens are kept, and so are the first
    tokens of each packed document, which little or nothing precedes; documents of up to
    ``kept_prefix`` tokens are never masked. ``mir/drop_rate`` is the realized share. A step takes
    about twice as long; at strength 0 the second pass is skipped. In the authors' code, a row is
    one sequence, and its first tokens are kept.

    Source:
        Xu et al. 2026, arXiv 2606.06888, masked-input regularization.

    Args:
        curriculum: Factor λ of the second loss, over training; a number is constant.
        max_share: Largest mask probability of a row, in (0, 1].
        kept_prefix: Number of tokens at the start of each packed document that are never masked.
        replacement: Replacement of a masked token: a ``zero`` vector, the ``mean_embedding`` of the
            tokens in the batch, the tokenizer's ``mask_token``, or an ordinary token: a
            ``random_token`` of the vocabulary, a ``unigram_token``, drawn by its frequency in the
            training text, or a ``document_token``, drawn from the same packed document.

    Raises:
        ValueError: If a setting is out of range.

    >>> MIR().requirements.second_forward
    True
    """

    def __init__(
        self,
        curriculum: Curriculum | float = 0.4,
        max_share: float = 0.5,
        kept_prefix: int = 8,
        replacement: Replacement = "zero",
    ) -> None:
        super().__init__()
        if not 0 < max_share <= 1:
            raise ValueError(f"MIR max_share: expected a share in (0, 1], got {max_share}")
        if kept_prefix < 0:
            raise ValueError(f"MIR kept_prefix: expected a number >= 0, got {kept_prefix}")
        require_choice("MIR replacement", replacement, Replacement)
        self.curriculum = as_curriculum(curriculum)
        self.max_share = max_share
        self.kept_prefix = kept_prefix
        self.replacement: Replacement = replacement

    @property
    def requirements(self) -> Requirements:
        """A second forward pass, and counts for one replacement."""
        counts = self.replacement == "unigram_token"
        return Requirements(token_counts=counts, second_forward=True, reads="loss")

    def check(self, vocabulary: Vocabulary, others: Sequence[Regularizer]) -> None:
        """Reject a replacement that the tokenizer does not support."""
        require_replacement("MIR", self.replacement, vocabulary)

    def on_token_loss(
        self, token_loss: TokenLoss, outputs: Outputs, step: TrainingStep
    ) -> TokenLoss:
        """Add the loss on the masked input."""
        strength = self.curriculum(step.progress)
        if strength == 0:
            return token_loss
        second = self._masked_forward(step)
        return replace(token_loss, loss=token_loss.loss + strength * second.nll)

    def _masked_forward(self, step: TrainingStep) -> Outputs:
        assert step.second_forward is not None, "Regularizers refuses a step without it"
        generator, real = step.generator(), step.document_ids >= 0
        masked = masked_inputs(
            step.alterable, step.document_ids, self.max_share, self.kept_prefix, generator
        )
        step.log("drop_rate", masked.sum() / step.alterable.sum().clamp(min=1))
        perturb = partial(
            replace_embeddings, dropped=masked, replacement=self.replacement, present=real
        )
        ids = replace_ids(step.input_ids, masked, self.replacement, step, generator)
        return step.second_forward(ids, perturb)
