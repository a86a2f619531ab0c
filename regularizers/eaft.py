"""Entropy-adaptive fine-tuning: reduce the loss of tokens with confident predictions."""

from dataclasses import replace

from torch import Tensor

from regularizers.base import Regularizer, Requirements
from regularizers.curricula import Curriculum, as_curriculum, require_probability
from regularizers.functional import masked_mean
from regularizers.outputs import Outputs, TokenLoss
from regularizers.training_step import TrainingStep

TOP_K = 20
# Just above ln 20, the maximum of the entropy among 20 tokens.
DIVISOR = 3.0


def entropy_weight(top_entropy: Tensor, strength: float) -> Tensor:
    """Return the weight of each token, 1 + s·(H / 3.0 − 1).

    Args:
        top_entropy: Entropies among the 20 most likely tokens, any shape, in nats.
        strength: Strength s in [0, 1].

    Returns:
        Same shape, in [0, 1]; 1 where the entropy is NaN.

    >>> import torch
    >>> entropy_weight(torch.tensor([0.0, 1.5, torch.nan]), 1.0)
    tensor([0.0000, 0.5000, 1.0000])
    """
    return 1 + strength * ((top_entropy / DIVISOR).nan_to_num(1.0) - 1)


class EAFT(Regularizer):
    """Scale the loss of each token by the entropy of the model's prediction.

    If a prediction is confident but the label differs, learning the label overwrites what the model
    knows. The loss of such a token is reduced. H_t is the entropy among the 20 most likely tokens,
    whose probabilities are renormalized; it has no gradient:

        L = Σ_t w_t · (−ln p_t) / n,  w_t = 1 + s · (H_t / 3.0 − 1)

    As in the authors' code, the divisor is 3.0, where the paper has the maximum of H_t,
    ln 20 = 2.996; and n is the number of tokens with a label, not the sum of the w_t. The loss is
    therefore smaller than in plain training. The interpolation by s is an addition of this project.

    Earlier versions capped the entropy over the whole vocabulary at ln 20. Most predictions of a
    small model exceed that, so most weights were 1; results differ.

    Source:
        Diao et al. 2026, arXiv 2601.02151.

    Args:
        curriculum: Strength s in [0, 1], over training; a number is constant.

    Raises:
        ValueError: If the strength is out of range.

    >>> EAFT().requirements.top_entropy
    20
    """

    def __init__(self, curriculum: Curriculum | float = 1.0) -> None:
        super().__init__()
        self.curriculum = as_curriculum(curriculum)
        require_probability("EAFT curriculum", self.curriculum)

    @property
    def requirements(self) -> Requirements:
        """Entropies among the most likely tokens."""
        return Requirements(top_entropy=TOP_K, reads="token")

    def on_token_loss(
        self, token_loss: TokenLoss, outputs: Outputs, step: TrainingStep
    ) -> TokenLoss:
        """Scale the loss of each token."""
        assert outputs.top_entropy is not None, "it is required"
        weight = entropy_weight(outputs.top_entropy, self.curriculum(step.progress))
        step.log("weight", masked_mean(weight, step.valid))
        return replace(token_loss, loss=weight * token_loss.loss)
