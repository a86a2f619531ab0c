"""Rho-1: learn only from tokens on which the model can still improve."""

from dataclasses import replace
from typing import Literal

import torch

from regularizers.base import Regularizer, Requirements
from regularizers.curricula import Curriculum, as_curriculum, require_probability
from regularizers.functional import is_lowest_share
from regularizers.outputs import Outputs, TokenLoss
from regularizers.ranking import ranking_groups
from regularizers.token_dropout import require_choice
from regularizers.training_step import TrainingStep

RankingScope = Literal["batch", "sequence", "document"]


class Rho1(Regularizer):
    """Exclude the tokens of lowest excess loss over a reference model.

    A frozen reference model, ideally trained on text of the desired kind, estimates how well each
    token can be predicted. Of the n tokens that count, the ⌊s·n⌋ of lowest excess loss Δ are
    excluded:

        Δ_t = ln p_ref(x_t) − ln p_θ(x_t)
        L = −Σ_t m_t·ln p_θ(x_t) / Σ_t m_t,   m_t = 0 for the share s of lowest Δ, otherwise 1

    The excess is signed: tokens that the model predicts better than the reference are excluded
    first. By default, tokens are ranked within the micro-batch of a device, as in the paper.

    The model before training is no useful reference: every excess is 0 at the first step, and later
    the tokens that the model learned best are excluded. ``fit`` warns about it. While the excesses
    of all tokens are equal, none is excluded.

    Source:
        Lin et al. 2024, arXiv 2404.07965, section 2.2.

    Args:
        curriculum: Excluded fraction s, over training; a number is constant. The paper keeps 60 %
            of general text and 70 % of mathematics.
        scope: Group in which tokens are ranked: the whole ``batch``, each ``sequence`` (row of the
            batch) or each packed ``document``.

    Raises:
        ValueError: If a setting is out of range.

    >>> Rho1().curriculum(0.5)
    0.4
    """

    def __init__(self, curriculum: Curriculum | float = 0.4, scope: RankingScope = "batch") -> None:
        super().__init__()
        self.curriculum = as_curriculum(curriculum)
        require_probability("Rho1 curriculum", self.curriculum)
        require_choice("Rho1 scope", scope, RankingScope)
        self.scope: RankingScope = scope

    @property
    def requirements(self) -> Requirements:
        """A reference model other than the initial one."""
        return Requirements(reference=True, other_reference=True)

    def on_token_loss(
        self, token_loss: TokenLoss, outputs: Outputs, step: TrainingStep
    ) -> TokenLoss:
        """Exclude the tokens of lowest excess from the loss and its denominator."""
        share = self.curriculum(step.progress)
        assert step.reference is not None, "Regularizers refuses a step without it"
        excess = outputs.nll.detach() - step.reference().nll
        groups = ranking_groups(step.document_ids, self.scope)
        left_out = is_lowest_share(excess, step.valid, groups, share)
        lowest, highest = excess.where(step.valid, torch.inf), excess.where(step.valid, -torch.inf)
        # If all are equal, places would decide.
        left_out &= lowest.amin() < highest.amax()
        step.log("drop_rate", left_out.sum() / step.valid.sum().clamp(min=1))
        return replace(token_loss, weight=token_loss.weight.masked_fill(left_out, 0.0))
