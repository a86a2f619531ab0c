"""Rho-1: learn from the tokens that the model could still learn."""

from dataclasses import replace
from typing import Literal

from regularizers.base import Regularizer, Requirements
from regularizers.curricula import Curriculum, as_curriculum, require_probability
from regularizers.functional import is_lowest_share
from regularizers.outputs import Outputs, TokenLoss
from regularizers.token_dropout import ranking_groups, require_choice
from regularizers.training_step import TrainingStep

RankingScope = Literal["batch", "sequence", "document"]


class Rho1(Regularizer):
    """Leave out of the loss the tokens of lowest excess over a reference model.

    A frozen reference model, ideally trained on text of the kind that is wanted, tells how well
    each token can be predicted. Of the tokens that count, the share s of lowest excess loss Δ is
    left out, exactly ⌊s·n⌋ of n:

        Δ_t = ln p_ref(x_t) − ln p_θ(x_t)
        L = −Σ_t m_t·ln p_θ(x_t) / Σ_t m_t,   m_t = 0 for the share s of lowest Δ, otherwise 1

    The excess is signed: tokens that the model predicts better than the reference go first. By
    default a token is ranked among all of the micro-batch of its device, as in the paper.

    Source:
        Lin et al. 2024, arXiv 2404.07965, section 2.2.

    Args:
        curriculum: share s that is left out, over training; a number is constant. The paper keeps
            60 % of general text and 70 % of mathematics.
        scope: tokens are ranked within the whole ``batch``, each ``sequence`` (row of the batch) or
            each packed ``document``.

    Raises:
        ValueError: if a setting is out of range.

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
        """A frozen model."""
        return Requirements(reference=True)

    def on_token_loss(
        self, token_loss: TokenLoss, outputs: Outputs, step: TrainingStep
    ) -> TokenLoss:
        """Take the tokens of lowest excess out of the loss and of its denominator."""
        share = self.curriculum(step.progress)
        assert step.reference is not None, "Regularizers refuses a step without it"
        excess = outputs.nll.detach() - step.reference().nll
        groups = ranking_groups(step.document_ids, self.scope)
        left_out = is_lowest_share(excess, step.valid, groups, share)
        step.log("drop_rate", left_out.sum() / step.valid.sum().clamp(min=1))
        return replace(token_loss, weight=token_loss.weight.masked_fill(left_out, 0.0))
