"""Entropy-adaptive fine-tuning: reduce the loss of tokens with confident predictions."""

import math
from dataclasses import replace
from typing import Literal

from torch import Tensor

from regularizers.base import Regularizer
from regularizers.curricula import Curriculum, as_curriculum, require_probability
from regularizers.outputs import Outputs, TokenLoss
from regularizers.token_dropout import require_choice
from regularizers.training_step import TrainingStep

Normalizer = Literal["ln_20", "ln_vocabulary", "nat"]


def normalized_entropy(entropy: Tensor, normalizer: Normalizer, vocabulary_size: int) -> Tensor:
    """Divide entropies by a unit.

    Args:
        entropy: Entropies of any shape, in nats.
        normalizer: ``ln_20`` caps at ln 20 and divides by it; ``ln_vocabulary`` does the same with
            ln V; ``nat`` only caps at ln 20.
        vocabulary_size: Vocabulary size, V.

    Returns:
        Same shape, without gradient; in [0, 1] unless the normalizer is ``nat``.

    >>> import torch
    >>> normalized_entropy(torch.tensor([0.0, 1.0, 5.0]), "ln_20", 1000)
    tensor([0.0000, 0.3338, 1.0000])
    """
    largest = math.log(vocabulary_size if normalizer == "ln_vocabulary" else 20)
    return entropy.detach().clamp(max=largest) / (1.0 if normalizer == "nat" else largest)


class EAFT(Regularizer):
    """Scale the loss of each token by the entropy of the model's prediction.

    If a prediction is confident but the label differs, learning the label overwrites what the model
    knows. The loss of such a token is reduced. The entropy H_t has no gradient:

        L = Σ_t w_t · (−ln p_t) / n,  w_t = 1 + s · (min(H_t, ln 20) / ln 20 − 1)

    As in the authors' code, n is the number of tokens with a label, not the sum of the w_t. The
    loss is therefore smaller than in plain training.

    The paper's H_t is the entropy among the 20 most likely tokens, divided by its maximum ln 20 (by
    3.0 in the authors' code). Other code omits the division; this is ``nat`` here and triples the
    loss. This implementation takes the entropy over the full vocabulary, which needs no logits, and
    caps it.

    Source:
        Diao et al. 2026, arXiv 2601.02151.

    Args:
        curriculum: Strength s in [0, 1], over training; a number is constant.
        normalizer: Divisor of the entropy. ``ln_vocabulary`` divides by the maximum of the entropy
            over the vocabulary, and thus does not cap it.

    Raises:
        ValueError: If a setting is out of range.

    >>> EAFT().curriculum(0.5)
    1.0
    """

    def __init__(
        self, curriculum: Curriculum | float = 1.0, normalizer: Normalizer = "ln_20"
    ) -> None:
        super().__init__()
        self.curriculum = as_curriculum(curriculum)
        require_probability("EAFT curriculum", self.curriculum)
        require_choice("EAFT normalizer", normalizer, Normalizer)
        self.normalizer: Normalizer = normalizer

    def on_token_loss(
        self, token_loss: TokenLoss, outputs: Outputs, step: TrainingStep
    ) -> TokenLoss:
        """Scale the loss of each token."""
        entropy = normalized_entropy(outputs.entropy, self.normalizer, step.vocabulary.size)
        scale = 1 + self.curriculum(step.progress) * (entropy.nan_to_num(1.0) - 1)
        return replace(token_loss, loss=scale * token_loss.loss)
