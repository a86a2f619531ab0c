"""The contract between a training loop and a regularizer.

One step flows through five places, and a regularizer has one hook for each:

    token ids → embeddings → token weights → (forward pass) → per-token loss → mean loss

Shapes: B rows in the batch, T tokens in a row, D embedding dimensions, V words in the vocabulary.
Position ``t`` always speaks about token ``t``: ``labels[t]`` is its label, ``nll[t]`` its loss,
``entropy[t]`` the entropy of the distribution that predicts it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from torch import Tensor, nn

from regularizers.curricula import Curriculum
from regularizers.outputs import Outputs, TokenLoss
from regularizers.training_step import TrainingStep, Vocabulary

EntropySource = Literal["last_epoch", "reference", "online"]


@dataclass(frozen=True)
class Requirements:
    """What a training loop must provide for a regularizer.

    Args:
        entropy: where the entropies of the inputs come from; None if they are not needed.
        second_forward: another forward pass with gradient.
        dropout: dropout inside the model, without which two passes over the same input are equal.
        reference: a frozen reference model.
        teacher: decay per optimizer step, in [0, 1), of the moving average of the weights that
            makes a teacher of the model; None if there is none.
        holdout_neighbours: how many similar holdout documents stand before a training document
            when its holdout gain is measured; None if no gain is needed.
        logits: the full ``[B, T, V]`` logits.
        entropy_gradient: gradients through the entropies of the outputs.
        divergence: :meth:`Outputs.kl_divergence` and :meth:`Outputs.kl_divergences`, without the
            full logits where that can be.
        evaluations: validation, without which nothing is learned from it; curricula say so
            themselves.
    """

    entropy: EntropySource | None = None
    second_forward: bool = False
    dropout: bool = False
    reference: bool = False
    teacher: float | None = None
    holdout_neighbours: int | None = None
    logits: bool = False
    entropy_gradient: bool = False
    divergence: bool = False
    evaluations: bool = False

    @property
    def frozen_passes(self) -> int:
        """How many forward passes without gradient a step takes.

        >>> Requirements(entropy="online", teacher=0.99).frozen_passes
        2
        """
        return (self.entropy == "online") + self.reference + (self.teacher is not None)


class Regularizer(nn.Module):
    """Base class of all regularizers: override the hooks that the method needs.

    Hooks run in the order in which they stand here, on training batches only. They return new
    tensors and never modify what they receive. Run them through
    :class:`~regularizers.compose.Regularizers`, which skips them in eval mode.
    """

    @property
    def requirements(self) -> Requirements:
        """What the training loop must provide."""
        return Requirements()

    def check(self, vocabulary: Vocabulary, others: Sequence["Regularizer"]) -> None:
        """Refuse, before training, a vocabulary or a company in which the method cannot work.

        Args:
            vocabulary: the tokenizer's.
            others: the regularizers that run beside this one.

        Raises:
            ValueError: saying what does not fit and what to do.
        """

    def on_input_ids(self, input_ids: Tensor, step: TrainingStep) -> Tensor:
        """Corrupt the token ids ``[B, T]`` before the embedding look-up."""
        return input_ids

    def on_embeddings(self, embeddings: Tensor, step: TrainingStep) -> Tensor:
        """Perturb the embeddings ``[B, T, D]`` after the look-up."""
        return embeddings

    def on_token_weight(self, token_weight: Tensor, step: TrainingStep) -> Tensor:
        """Weigh the loss of each token, ``[B, T]`` fp32, before the forward pass.

        Prefer this to :meth:`on_token_loss` for weights that do not depend on the outputs: the
        fused head is then faster.
        """
        return token_weight

    def on_token_loss(
        self, token_loss: TokenLoss, outputs: Outputs, step: TrainingStep
    ) -> TokenLoss:
        """Reshape the loss of each token or its weight, after the forward pass."""
        return token_loss

    def on_loss(self, loss: Tensor, outputs: Outputs, step: TrainingStep) -> Tensor:
        """Add a penalty to the mean loss of the micro-batch, a scalar, or reshape it."""
        return loss

    def on_evaluation(self, metrics: Mapping[str, float]) -> None:
        """Learn from an evaluation; by default, let its curricula do so.

        What is learned must depend on nothing else: a resumed run tells all earlier evaluations
        again, in their order, and so needs to save nothing.

        Args:
            metrics: by name, such as ``val/loss`` or ``gap/loss_low_entropy``.
        """
        for curriculum in curricula_of(self).values():
            curriculum.on_evaluation(metrics)


def curricula_of(regularizer: Regularizer) -> dict[str, Curriculum]:
    """Return the curricula that a regularizer holds, by the names of its attributes.

    >>> curricula_of(Regularizer())
    {}
    """
    held = {**vars(regularizer), **dict(regularizer.named_children())}
    return {name: each for name, each in held.items() if isinstance(each, Curriculum)}
