"""Exclude from the loss the tokens that the model is least sure of."""

from dataclasses import replace
from typing import Literal

from torch import Tensor

from regularizers.base import Regularizer
from regularizers.curricula import Curriculum, as_curriculum, require_probability
from regularizers.functional import is_lowest_share
from regularizers.outputs import Outputs, TokenLoss
from regularizers.token_dropout import ranking_groups, require_choice
from regularizers.training_step import TrainingStep

ExclusionScope = Literal["document", "sequence", "batch"]


def is_highest_entropy(entropy: Tensor, valid: Tensor, groups: Tensor, share: float) -> Tensor:
    """Mark, within each group, exactly ``⌊share · n⌋`` valid tokens: those of highest entropy.

    Args:
        entropy: ``[B, T]``; what is NaN is never marked, nor counted in n.
        valid: ``[B, T]`` bool.
        groups: ``[B, T]`` int64 in ``[0, B·T)``; tokens of equal number are ranked together.
        share: in ``[0, 1]``.

    Returns:
        ``[B, T]`` bool; ties go to the earlier position.

    >>> import torch
    >>> entropy = torch.tensor([[1.0, 3.0, 2.0, 0.0]])
    >>> is_highest_entropy(entropy, entropy >= 0, torch.zeros(1, 4, dtype=torch.long), 0.5)
    tensor([[False,  True,  True, False]])
    """
    return is_lowest_share(-entropy, valid & ~entropy.isnan(), groups, share)


class HighEntropyExclusion(Regularizer):
    """Leave out of the loss the tokens of highest predicted entropy.

    What the model is least sure of, a small corpus teaches it by heart rather than by rule; such
    tokens count neither in the loss nor in its denominator:

        L = Σ_t k_t · (−ln p_t) / Σ_t k_t,  k_t = 0 for the ⌊share · n⌋ tokens of highest H_t

    This is the part of EKSFT that needs no reference model; its other parts exclude tokens of high
    divergence from one and add two penalties. H_t is the entropy of the distribution which predicts
    x_t; the published code takes that of the token after it. It ranks the tokens of a micro-batch
    on one device, a single sequence; ``sequence`` is that, however batches are split.

    Source:
        Liu et al. 2026 (EKSFT), arXiv 2605.29303.

    Args:
        curriculum: share of the tokens that are left out, over training; a number is constant.
        scope: among which tokens the entropies are ranked: a packed document, a row, or the
            micro-batch of one rank.

    Raises:
        ValueError: if a setting is out of range.

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
        """Take the tokens of highest entropy out of the loss and of its denominator."""
        excluded = is_highest_entropy(
            outputs.entropy,
            step.valid,
            ranking_groups(step.document_ids, self.scope),
            self.curriculum(step.progress),
        )
        step.log("drop_rate", excluded.sum() / step.valid.sum().clamp(min=1))
        return replace(token_loss, weight=token_loss.weight.masked_fill(excluded, 0.0))
