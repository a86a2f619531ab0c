"""Loss truncation: exclude the tokens of highest loss."""

import torch
from torch import Tensor

from regularizers import Curriculum, Outputs, Regularizer, TokenLoss, TrainingStep
from regularizers.curricula import as_curriculum, require_probability
from regularizers.functional import is_lowest_share


def truncated_weight(nll: Tensor, weight: Tensor, share: float) -> Tensor:
    """Return the weights, with 0 for the highest losses.

    Args:
        nll: Losses ``[B, T]``.
        weight: Weights ``[B, T]``. Of the n tokens with a positive weight, the ⌊(1 − share)·n⌋ of
            lowest loss keep it.
        share: Fraction of the tokens to exclude, in [0, 1].

    Returns:
        ``[B, T]``, without gradient.

    >>> truncated_weight(torch.tensor([[4.0, 1.0, 3.0, 2.0]]), torch.ones(1, 4), 0.5)
    tensor([[0., 1., 0., 1.]])
    """
    one_group = torch.zeros_like(nll, dtype=torch.long)
    kept = is_lowest_share(nll.detach(), weight > 0, one_group, 1 - share)
    return weight.detach() * kept


class LossTruncation(Regularizer):
    """Exclude the tokens of highest loss.

    Noise in the text, which a model can only memorize, has a high loss. With ℓ₍ᵢ₎ the i-th lowest
    of the n losses of a micro-batch, the training loss is:

        L = 1/k · Σ_{i ≤ k} ℓ₍ᵢ₎    k = ⌊(1 − share) · n⌋

    The paper excludes whole sequences, by a quantile of the losses of recent batches. Here tokens
    are excluded, among those of a micro-batch on one rank.

    Source:
        Kang and Hashimoto 2020, arXiv 2004.14589.

    Args:
        curriculum: Fraction of excluded tokens, over training; a number is constant.

    Raises:
        ValueError: If the fraction is outside [0, 1].

    >>> LossTruncation(0.2).curriculum(0.5)
    0.2
    """

    def __init__(self, curriculum: Curriculum | float = 0.1) -> None:
        super().__init__()
        self.curriculum = as_curriculum(curriculum)
        require_probability("LossTruncation curriculum", self.curriculum)

    def on_token_loss(
        self, token_loss: TokenLoss, outputs: Outputs, step: TrainingStep
    ) -> TokenLoss:
        """Set the weight of the highest losses to 0."""
        share = self.curriculum(step.progress)
        step.log("strength", torch.tensor(share))
        return TokenLoss(
            token_loss.loss, truncated_weight(token_loss.loss, token_loss.weight, share)
        )
