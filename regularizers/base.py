"""The contract between a training loop and a regularizer.

A training step has five stages, and a regularizer has one hook for each:

    token ids → embeddings → token weights → (forward pass) → per-token loss → mean loss

An optimizer step has another one, for penalties on parameters.

Shapes: B rows in the batch, T tokens in a row, D embedding dimensions, V vocabulary size. Position
``t`` always refers to token ``t``: ``labels[t]`` is its label, ``nll[t]`` its loss, ``entropy[t]``
the entropy of the distribution that predicts it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from torch import Tensor, nn

from regularizers.curricula import Curriculum
from regularizers.outputs import Outputs, TokenLoss
from regularizers.parameters import ParameterPart
from regularizers.training_step import TrainingStep, Vocabulary

EntropySource = Literal["last_epoch", "reference", "online"]
Reads = Literal["batch", "token", "loss"]


@dataclass(frozen=True)
class Requirements:
    """What a training loop must provide for a regularizer.

    Args:
        entropy: Source of the entropies of the inputs; None if they are not needed.
        token_counts: Whether the number of occurrences of each token id in the training text is
            needed.
        second_forward: Whether another forward pass with gradient is needed.
        dropout: Whether dropout inside the model is needed; without it, two passes over the same
            input are equal.
        reference: Whether a frozen reference model is needed.
        other_reference: Whether the reference should be another model than the one before training.
        teacher: Decay per optimizer step, in [0, 1), of the moving average of the weights that
            forms the teacher; None for no teacher.
        holdout_neighbors: Number of similar holdout documents that precede a training document
            when its holdout gain is measured; None if no gain is needed.
        logits: Whether the full ``[B, T, V]`` logits are needed.
        entropy_gradient: Whether the entropies of the outputs need a gradient.
        top_entropy: Number of most likely tokens among which entropies of the outputs are needed;
            None if they are not.
        divergence: Whether :meth:`Outputs.kl_divergence` and :meth:`Outputs.kl_divergences` are
            needed; full logits are avoided where possible.
        initial_weights: Whether the values of parameters before training are needed.
        initial_copy: Whether a GPU should copy these values into its memory, instead of reading
            them from the files of the model at each step.
        evaluations: Whether validation is needed. Curricula that follow evaluations declare it
            themselves.
        reads: What :meth:`Regularizer.on_token_loss` and :meth:`Regularizer.on_loss` read of the
            outputs; the head recomputes its logits only for ``batch``, outputs of any tokens. With
            ``token``, they are called with parts of the tokens: the loss of a token depends on its
            own outputs alone, weights stay, and ``on_loss`` adds a mean over the valid tokens. With
            ``loss``, they transform the loss alike for all tokens, whatever the outputs, or add
            losses ``nll`` of second passes.
    """

    entropy: EntropySource | None = None
    token_counts: bool = False
    second_forward: bool = False
    dropout: bool = False
    reference: bool = False
    other_reference: bool = False
    teacher: float | None = None
    holdout_neighbors: int | None = None
    logits: bool = False
    entropy_gradient: bool = False
    top_entropy: int | None = None
    divergence: bool = False
    initial_weights: bool = False
    initial_copy: bool = False
    evaluations: bool = False
    reads: Reads = "batch"

    @property
    def frozen_passes(self) -> int:
        """Number of forward passes without gradient per step.

        >>> Requirements(entropy="online", teacher=0.99).frozen_passes
        2
        """
        return (self.entropy == "online") + self.reference + (self.teacher is not None)


class Regularizer(nn.Module):
    """Base class of all regularizers; override the hooks that the method needs.

    Hooks run in the order below, on training batches only. They return new tensors and never modify
    their arguments. Run them through :class:`~regularizers.compose.Regularizers`, which skips them
    in eval mode.
    """

    #: Whether the gradient of :meth:`on_parameter`, times the learning rate, is subtracted from the
    #: parameters directly, as AdamW does with weight decay, and not added to their gradient.
    decoupled: bool = False

    @property
    def requirements(self) -> Requirements:
        """What the training loop must provide."""
        return Requirements()

    def check(self, vocabulary: Vocabulary, others: Sequence["Regularizer"]) -> None:
        """Reject a vocabulary or a combination with which the method cannot work, before training.

        Args:
            vocabulary: Vocabulary of the tokenizer.
            others: The other regularizers of the run.

        Raises:
            ValueError: If the method cannot work; the message names a remedy.
        """

    def on_input_ids(self, input_ids: Tensor, step: TrainingStep) -> Tensor:
        """Corrupt the token ids ``[B, T]`` before the embedding look-up."""
        return input_ids

    def on_embeddings(self, embeddings: Tensor, step: TrainingStep) -> Tensor:
        """Perturb the embeddings ``[B, T, D]`` after the look-up."""
        return embeddings

    def on_token_weight(self, token_weight: Tensor, step: TrainingStep) -> Tensor:
        """Weight the loss of each token, ``[B, T]`` fp32, before the forward pass.

        Prefer this to :meth:`on_token_loss` if the weights do not depend on the outputs: the fused
        head is faster then.
        """
        return token_weight

    def on_token_loss(
        self, token_loss: TokenLoss, outputs: Outputs, step: TrainingStep
    ) -> TokenLoss:
        """Change the loss or the weight of each token, after the forward pass."""
        return token_loss

    def on_loss(self, loss: Tensor, outputs: Outputs, step: TrainingStep) -> Tensor:
        """Add a penalty to the mean loss of the micro-batch, a scalar, or change it."""
        return loss

    def on_parameter(self, parameter: ParameterPart, progress: float) -> Tensor | None:
        """Penalize a part of a trained parameter, once per optimizer step.

        The penalty is added to the mean loss of the step. It must be a sum over the numbers of the
        part, because no device sees a whole parameter under sharding.

        Args:
            parameter: Part of a parameter.
            progress: Fraction of all optimizer steps that are done, in [0, 1].

        Returns:
            A scalar with gradient; None for no penalty.
        """
        return None

    def on_evaluation(self, metrics: Mapping[str, float]) -> None:
        """Adapt to an evaluation; by default, pass it to the curricula.

        The new state may depend on the evaluations alone. A resumed run then repeats all earlier
        evaluations in order, and no state is saved.

        Args:
            metrics: Metrics by name, such as ``val/loss`` or ``gap/loss_low_entropy``.
        """
        for curriculum in curricula_of(self).values():
            curriculum.on_evaluation(metrics)


def curricula_of(regularizer: Regularizer) -> dict[str, Curriculum]:
    """Return the curricula of a regularizer, by attribute name.

    >>> curricula_of(Regularizer())
    {}
    """
    attributes = {**vars(regularizer), **dict(regularizer.named_children())}
    return {name: each for name, each in attributes.items() if isinstance(each, Curriculum)}


def overrides(kind: type[Regularizer], hook: str) -> bool:
    """Return whether a class overrides a hook.

    >>> overrides(Regularizer, "on_loss")
    False
    """
    return getattr(kind, hook) is not getattr(Regularizer, hook)
