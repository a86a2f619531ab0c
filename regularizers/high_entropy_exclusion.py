"""Exclude tokens with the most uncertain predictions from the loss."""

from dataclasses import replace
from typing import Literal

from torch import Tensor

from regularizers.base import Regularizer
from regularizers.curricula import Curriculum, as_curriculum, require_probability
from regularizers.functional import is_lowest_share
from regularizers.outputs import Outputs, TokenLoss
from regularizers.ranking import ranking_groups
from regularizers.token_dropout import require_choice
from regularizers.training_step import TrainingStep

ExclusionScope = Literal["document", "sequence", "batch"]


def is_highest_entropy(entropy: Tensor, valid: Tensor, groups: Tensor, share: float) -> Tensor:
    """Mark, within each group, exactly the ``⌊share · n⌋`` valid tokens of highest entropy.

    Args:
        entropy: Entropies ``[B, T]``; tokens with NaN are never marked, nor counted in n.
        valid: Mask ``[B, T]`` bool.
        groups: Group numbers ``[B, T]`` int64 in ``[0, B·T)``; each group is ranked separately.
        share: Fraction in ``[0, 1]``.

    Returns:
        ``[B, T]`` bool; ties are resolved in favor of the earlier position.

    >>> import torch
    >>> entropy = torch.tensor([[1.0, 3.0, 2.0, 0.0]])
    >>> is_highest_entropy(entropy, entropy >= 0, torch.zeros(1, 4, dtype=torch.long), 0.5)
    tensor([[False,  True,  True, False]])
    """
    return is_lowest_share(-entropy, valid & ~entropy.isnan(), groups, share)


class HighEntropyExclusion(Regularizer):
    """Exclude the tokens of highest predicted entropy from the loss.

    From a small corpus, a model memorizes uncertain tokens instead of learning rules for them. Such
    tokens count neither in the loss nor in its denominator:

        L = Σ_t k_t · (−ln p_t) / Σ_t k_t,  k_t = 0 for the ⌊share · n⌋ tokens of highest H_t

    This is the part of EKSFT that needs no reference model. Its other parts exclude tokens of high
    divergence from a reference and add two penalties. H_t is the entropy of the distribution that
    predicts x_t; the published code uses the entropy of the next token, and ranks the tokens of a
    micro-batch on one device, a single sequence. ``sequence`` does the same for any micro-batch
    size.

    Source:
        Liu et al. 2026 (EKSFT), arXiv 2605.29303.

    Args:
        curriculum: Fraction of excluded tokens, over training; a number is constant.
        scope: Group in which entropies are ranked: a packed ``document``, a ``sequence`` (row of
            the batch), or the micro-``batch`` of one rank.

    Raises:
        ValueError: If a setting is out of range.

    >>> HighEntropyExclusion().curriculum(0.5)
    0.2
    """

    def __init__(
        self, curriculum: Curriculum | float = 0.2, scope: ExclusionScope = "sequence"
    ) -> None:
        super().__init__()
        self.curriculum = as_curriculum(curriculum)
        require_probability("HighEntropyExclusion curriculum", self.curriculum)
        require_choice("HighEntropyExclusion scope", scope, ExclusionScope)
        self.scope: ExclusionScope = scope

    def on_token_loss(
        self, token_loss: TokenLoss, outputs: Outputs, step: TrainingStep
    ) -> TokenLoss:
        """Exclude the tokens of highest entropy from the loss and its denominator."""
        excluded = is_highest_entropy(
            outputs.entropy,
            step.valid,
            ranking_groups(step.document_ids, self.scope),
            self.curriculum(step.progress),
        )
        step.log("drop_rate", excluded.sum() / step.valid.sum().clamp(min=1))
        return replace(token_loss, weight=token_loss.weight.masked_fill(excluded, 0.0))
