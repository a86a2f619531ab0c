"""Regularizers that break the contract, each in one way."""

import torch
from torch import Tensor

from regularizers import Outputs, Regularizer, TokenLoss, TrainingStep


class DropAll(Regularizer):
    """Zeroes embeddings of special tokens and padding too."""

    def on_embeddings(self, embeddings: Tensor, step: TrainingStep) -> Tensor:
        return embeddings * 0.5


class CountPadding(Regularizer):
    """Gives weight to what must not count."""

    def on_token_weight(self, token_weight: Tensor, step: TrainingStep) -> Tensor:
        return torch.ones_like(token_weight)


class Idle(Regularizer):
    """Does nothing at all."""


class NotANumber(Regularizer):
    """Makes the loss undefined."""

    def on_loss(self, loss: Tensor, outputs: Outputs, step: TrainingStep) -> Tensor:
        return loss / 0.0 * 0.0


class LargestOfBatch(Regularizer):
    """Weighs tokens by the largest loss of the batch, which depends on its size."""

    def on_token_loss(
        self, token_loss: TokenLoss, outputs: Outputs, step: TrainingStep
    ) -> TokenLoss:
        largest = outputs.nll.detach().max()
        return TokenLoss(token_loss.loss, token_loss.weight * (outputs.nll.detach() == largest))


class Boastful(Regularizer):
    """Drops a tenth of what it promises."""

    def __init__(self, curriculum: object) -> None:
        super().__init__()
        self.curriculum = curriculum

    def on_embeddings(self, embeddings: Tensor, step: TrainingStep) -> Tensor:
        drawn = torch.rand(step.input_ids.shape, generator=step.generator())
        dropped = step.alterable & (drawn < 0.05)
        step.log("drop_rate", dropped.sum() / step.alterable.sum())
        return embeddings.masked_fill(dropped[..., None], 0.0)


class Broken(Regularizer):
    """Raises."""

    def on_input_ids(self, input_ids: Tensor, step: TrainingStep) -> Tensor:
        raise RuntimeError("this plug-in\nhas a bug")
