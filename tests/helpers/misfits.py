"""Regularizers that break the contract in ways that look right."""

from dataclasses import replace

import torch
from torch import Tensor

from regularizers import (
    Constant,
    Curriculum,
    Outputs,
    Regularizer,
    Requirements,
    TokenLoss,
    TrainingStep,
)
from regularizers.curricula import as_curriculum
from regularizers.functional import bernoulli, masked_mean


class Misfit(Regularizer):
    """Takes any strength."""

    def __init__(self, curriculum: Curriculum | float = 0.1) -> None:
        super().__init__()
        self.curriculum = as_curriculum(curriculum)


class SecretReference(Misfit):
    """Runs a reference model without asking for it."""

    def on_token_loss(
        self, token_loss: TokenLoss, outputs: Outputs, step: TrainingStep
    ) -> TokenLoss:
        assert step.reference is not None
        excess = (token_loss.loss - step.reference().nll).abs()
        return replace(token_loss, loss=token_loss.loss + self.curriculum(step.progress) * excess)


class SecretLogits(Misfit):
    """Looks at logits that the fused head does not make."""

    def on_loss(self, loss: Tensor, outputs: Outputs, step: TrainingStep) -> Tensor:
        assert outputs.logits is not None
        squares = masked_mean(outputs.logits.square().mean(-1), step.valid)
        return loss + self.curriculum(step.progress) * squares


class SecretEntropy(Misfit):
    """Weighs tokens by entropies that nobody records."""

    def on_token_weight(self, token_weight: Tensor, step: TrainingStep) -> Tensor:
        assert step.entropy is not None
        entropy = step.entropy.nan_to_num(0.0)
        return token_weight * (1 + self.curriculum(step.progress) * entropy)


class IdlePenalty(Misfit):
    """Adds an entropy to the loss that carries no gradient."""

    def on_loss(self, loss: Tensor, outputs: Outputs, step: TrainingStep) -> Tensor:
        return loss - self.curriculum(step.progress) * masked_mean(outputs.entropy, step.valid)


class AcrossTokens(Misfit):
    """Subtracts the mean of all tokens from each, and declares that it reads them one by one."""

    @property
    def requirements(self) -> Requirements:
        return Requirements(reads="token")

    def on_token_loss(
        self, token_loss: TokenLoss, outputs: Outputs, step: TrainingStep
    ) -> TokenLoss:
        mean = masked_mean(outputs.nll, step.valid)
        excess = (outputs.nll - mean).square() * self.curriculum(step.progress)
        return replace(token_loss, loss=token_loss.loss + excess.where(step.valid, 0.0))


class Everywhere(Misfit):
    """Counts padding and prompts in a mean."""

    def on_loss(self, loss: Tensor, outputs: Outputs, step: TrainingStep) -> Tensor:
        return loss + self.curriculum(step.progress) * outputs.logsumexp.square().mean()


class LookAhead(Misfit):
    """Adds the embedding of the next token, which is to be predicted."""

    def on_embeddings(self, embeddings: Tensor, step: TrainingStep) -> Tensor:
        later = self.curriculum(step.progress) * embeddings.roll(-1, 1)
        return torch.where(step.alterable[..., None], embeddings + later, embeddings)


class Alone(Misfit):
    """Forgets what others made of losses and weights."""

    def on_token_loss(
        self, token_loss: TokenLoss, outputs: Outputs, step: TrainingStep
    ) -> TokenLoss:
        factor = 1 + self.curriculum(step.progress) * outputs.nll.detach()
        return TokenLoss(factor * outputs.nll, step.valid.float())


class Negative(Misfit):
    """Lets a weight fall below 0."""

    def on_token_weight(self, token_weight: Tensor, step: TrainingStep) -> Tensor:
        return token_weight * (1 - 3 * self.curriculum(step.progress))


class Counting(Misfit):
    """Grows with the number of its steps, of which a resumed run knows nothing."""

    steps = 0

    def on_loss(self, loss: Tensor, outputs: Outputs, step: TrainingStep) -> Tensor:
        self.steps += 1
        return loss * (1 + self.curriculum(step.progress) * self.steps)


class InPlaceWeight(Misfit):
    """Writes into the weight that it receives."""

    def on_token_weight(self, token_weight: Tensor, step: TrainingStep) -> Tensor:
        return token_weight.mul_(1 - self.curriculum(step.progress) / 2)


class InPlaceTokenLoss(Misfit):
    """Writes into the weight beside the loss."""

    def on_token_loss(
        self, token_loss: TokenLoss, outputs: Outputs, step: TrainingStep
    ) -> TokenLoss:
        token_loss.weight.mul_(1 - self.curriculum(step.progress) / 2)
        return token_loss


class InPlaceLoss(Misfit):
    """Writes into the mean loss."""

    def on_loss(self, loss: Tensor, outputs: Outputs, step: TrainingStep) -> Tensor:
        return loss.mul_(1 + self.curriculum(step.progress))


class InPlaceMask(Misfit):
    """Writes into a mask of the step."""

    def on_embeddings(self, embeddings: Tensor, step: TrainingStep) -> Tensor:
        rate = self.curriculum(step.progress)
        hidden = step.alterable.logical_and_(
            bernoulli(step.input_ids.shape, rate, step.generator())
        )
        return embeddings.masked_fill(hidden[..., None], 0.0)


class Weightless(Misfit):
    """Leaves a token out even at strength 0."""

    def on_token_weight(self, token_weight: Tensor, step: TrainingStep) -> Tensor:
        return token_weight.index_fill(1, torch.tensor([5]), 0.0)


class Inert(Misfit):
    """Forgets to use its strength."""


class Careless(Regularizer):
    """Takes any number for its share and its strength."""

    def __init__(self, curriculum: float = 0.1, share: float = 0.5) -> None:
        super().__init__()
        self.curriculum = Constant(0.1)


class Vague(Careless):
    """Refuses without a name."""

    def __init__(self, curriculum: float = 0.1, share: float = 0.5) -> None:
        super().__init__()
        if not 0 <= share <= 1:
            raise ValueError("out of range")


class Unlike(Misfit):
    """Forgets its strength in a copy."""

    def __reduce__(self) -> tuple[type["Unlike"], tuple[()]]:
        return Unlike, ()

    def on_token_weight(self, token_weight: Tensor, step: TrainingStep) -> Tensor:
        return token_weight * (1 - self.curriculum(step.progress))


class DropAll(Regularizer):
    """Zeroes embeddings of special tokens and padding too."""

    def on_embeddings(self, embeddings: Tensor, step: TrainingStep) -> Tensor:
        return embeddings * 0.5


class CountPadding(Regularizer):
    """Gives weight to what must not count."""

    def on_token_weight(self, token_weight: Tensor, step: TrainingStep) -> Tensor:
        return torch.ones_like(token_weight)


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
