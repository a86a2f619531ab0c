"""The contract between a training loop and a regularizer.

One step flows through five places, and a regularizer has one hook for each:

    token ids → embeddings → token weights → (forward pass) → per-token loss → mean loss

Shapes: B rows in the batch, T tokens in a row, D embedding dimensions, V words in the vocabulary.
Position ``t`` always speaks about token ``t``: ``labels[t]`` is its label, ``nll[t]`` its loss,
``entropy[t]`` the entropy of the distribution that predicts it.
"""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal, Protocol

import torch
from torch import Tensor, nn

from regularizers.curricula import Curriculum
from regularizers.functional import (
    IGNORE_INDEX,
    ids_tensor,
    is_unpredicted,
    kl_divergence,
    predicted_labels,
    shift_right,
    token_entropy,
)

EntropySource = Literal["last_epoch", "reference", "online"]


@dataclass(frozen=True)
class Vocabulary:
    """What a regularizer may know about the tokenizer.

    Args:
        size: number of ids that the tokenizer knows, V.
        special_ids: ids of control tokens, which regularizers never alter.
        mask_id: id of the mask token, if there is one.
    """

    size: int
    special_ids: tuple[int, ...] = ()
    mask_id: int | None = None


class Predictions(Protocol):
    """The distributions p(· | x_<t) of a forward pass, however they are held."""

    def kl_divergences(self, other: Any) -> tuple[Tensor, Tensor]:
        """Return KL(own ‖ other) and KL(other ‖ own) of each token.

        ``[B, T]`` nats each; 0 where nothing predicts the token.
        """


@dataclass(frozen=True)
class Outputs:
    """What a forward pass tells about each token.

    Args:
        nll: ``[B, T]`` fp32, −ln p(x_t | x_<t), with gradient; 0 where the label is ignored.
        entropy: ``[B, T]`` fp32 nats of p(· | x_<t); NaN where nothing predicts x_t.
            With gradient only if that is required.
        logsumexp: ``[B, T]`` fp32, ln Σ_v exp z_v of the same logits, with gradient.
        mean_logit: ``[B, T]`` fp32, Σ_v z_v / V, with gradient; label smoothing by ε makes the loss
            (1 − ε)·nll + ε·(logsumexp − mean_logit).
        correct: ``[B, T]`` bool, whether no word is likelier than the label.
        logits: ``[B, T, V]`` aligned likewise (row t predicts x_t), only if a regularizer requires
            them, as they are the largest tensor of a step.
        weighted_loss: scalar, Σ weight·nll with gradient, if the weights were known before the
            pass. Then nothing else has a gradient, which saves a quarter of the head's arithmetic.
        predictions: for :meth:`kl_divergence` where there are no logits; only if a regularizer
            requires the divergence.
    """

    nll: Tensor
    entropy: Tensor
    logsumexp: Tensor
    mean_logit: Tensor
    correct: Tensor
    logits: Tensor | None = None
    weighted_loss: Tensor | None = None
    predictions: Predictions | None = None

    def kl_divergence(self, other: "Outputs") -> Tensor:
        """Compute KL(p ‖ q) of each token, p being these outputs' prediction and q the others'.

        Args:
            other: of another pass over the same tokens, or of a reference model.

        Returns:
            ``[B, T]`` fp32 nats, 0 where nothing predicts the token; gradients flow to both sides.

        Raises:
            ValueError: if one of both passes kept neither logits nor predictions.

        >>> ids = torch.tensor([[0, 1]])
        >>> passes = [
        ...     Outputs.from_logits(logits, ids, torch.zeros_like(ids))
        ...     for logits in (torch.zeros(1, 2, 4), torch.tensor([[[1.0, 0, 0, 0]] * 2]))
        ... ]
        >>> passes[0].kl_divergence(passes[1])
        tensor([[0.0000, 0.1074]])
        """
        if self.logits is None or other.logits is None:
            return self.kl_divergences(other)[0]
        log_p, log_q = self.logits.log_softmax(-1), other.logits.log_softmax(-1)
        return kl_divergence(log_p, log_q).masked_fill(self.entropy.isnan(), 0.0)

    def kl_divergences(self, other: "Outputs") -> tuple[Tensor, Tensor]:
        """Compute KL(p ‖ q) and KL(q ‖ p) of each token, for little more than one of them costs.

        Args:
            other: as in :meth:`kl_divergence`.

        Returns:
            Both, each as :meth:`kl_divergence` returns it.

        Raises:
            ValueError: if one of both passes kept neither logits nor predictions.

        >>> ids = torch.tensor([[0, 1]])
        >>> passes = [
        ...     Outputs.from_logits(logits, ids, torch.zeros_like(ids))
        ...     for logits in (torch.zeros(1, 2, 4), torch.tensor([[[1.0, 0, 0, 0]] * 2]))
        ... ]
        >>> passes[0].kl_divergences(passes[1])
        (tensor([[0.0000, 0.1074]]), tensor([[0.0000, 0.1180]]))
        """
        if self.logits is not None and other.logits is not None:
            return self.kl_divergence(other), other.kl_divergence(self)
        if self.predictions is None or other.predictions is None:
            raise ValueError(
                "kl_divergence: expected outputs that keep their predictions, got some that do "
                "not: set divergence=True in the requirements of the regularizer"
            )
        return self.predictions.kl_divergences(other.predictions)

    @classmethod
    def from_logits(
        cls,
        logits: Tensor,
        labels: Tensor,
        document_ids: Tensor,
        entropy_gradient: bool = False,
    ) -> "Outputs":
        """Compute the outputs from the logits of any causal LM.

        Args:
            logits: ``[B, T, V]`` as the model returns them: row t predicts x_{t+1}.
            labels: ``[B, T]`` int64, aligned with the inputs; -100 is ignored, and so are padding
                and the first token of a document.
            document_ids: ``[B, T]`` int64, -1 for padding.
            entropy_gradient: let gradients flow into the entropy.

        Returns:
            The outputs, aligned with the inputs; logits included.

        >>> ids = torch.tensor([[0, 1]])
        >>> Outputs.from_logits(torch.zeros(1, 2, 4), ids, torch.zeros_like(ids)).entropy
        tensor([[   nan, 1.3863]])
        """
        labels = predicted_labels(labels, document_ids)
        aligned = shift_right(logits, 0.0).float()
        nll = nn.functional.cross_entropy(
            aligned.transpose(1, 2), labels, ignore_index=IGNORE_INDEX, reduction="none"
        )
        entropy = token_entropy(aligned if entropy_gradient else aligned.detach())
        entropy = entropy.masked_fill(is_unpredicted(document_ids), torch.nan)
        label_logit = aligned.gather(-1, labels.clamp(min=0)[..., None]).squeeze(-1)
        correct = (labels != IGNORE_INDEX) & (label_logit >= aligned.amax(-1))
        return cls(nll, entropy, aligned.logsumexp(-1), aligned.mean(-1), correct, aligned)


@dataclass(frozen=True)
class TokenLoss:
    """Per-token loss and weight; the training loss is Σ weight·loss / Σ weight.

    Args:
        loss: ``[B, T]`` fp32, 0 where the label is ignored.
        weight: ``[B, T]`` fp32, 0 where a token does not count.
    """

    loss: Tensor
    weight: Tensor


class SecondForward(Protocol):
    """Run the model being trained once more, with gradient."""

    def __call__(
        self, input_ids: Tensor | None = None, perturb: Callable[[Tensor], Tensor] | None = None
    ) -> Outputs:
        """Return the outputs for other inputs against the same labels.

        Args:
            input_ids: ``[B, T]`` int64; None means the clean tokens.
            perturb: maps embeddings ``[B, T, D]`` to new ones; None leaves them clean.

        Without any argument the first pass is repeated as it was, corruptions included, with
        fresh dropout inside the model. Logits come along if they are required.
        """


def of_this_rank_alone(values: Tensor) -> Tensor:
    """Gather nothing: what a loop on one device does.

    >>> of_this_rank_alone(torch.ones(2))
    tensor([1., 1.])
    """
    return values


@dataclass(frozen=True)
class TrainingStep:
    """All that a hook may need to know about one micro-batch.

    Args:
        input_ids: ``[B, T]`` int64, the uncorrupted tokens.
        labels: ``[B, T]`` int64, aligned with ``input_ids`` (not shifted); -100 does not count.
        document_ids: ``[B, T]`` int64, one number per packed document of a row, -1 for padding.
        vocabulary: sizes and special ids of the tokenizer.
        entropy: ``[B, T]`` fp32 nats of p(· | x_<t), NaN where unknown; None if nobody requires it.
        corpus_entropy: ``[Q]`` fp32, evenly spaced quantiles of the entropies of the corpus.
        progress: share of all optimizer steps that are done, in [0, 1].
        global_step: optimizer steps done.
        epoch: passes over the data done.
        micro_batch: index of this micro-batch within its optimizer step.
        rank: data-parallel rank; ranks of one tensor-parallel group share it.
        seed: seed of the run.
        stream: tells apart the random numbers of several regularizers.
        second_forward: runs the model again; None if nobody requires it.
        reference: runs the frozen reference model on the clean inputs; None if nobody requires it.
        teacher: runs the model with the moving average of its weights on the clean inputs, in eval
            mode and without gradient; None if nobody requires it.
        holdout_gain: ``[B, T]`` fp32, by how many nats a token the loss of its document falls if
            similar holdout documents stand before it, under the model before training; NaN where
            unknown; None if nobody requires it.
        gather: puts together what all data-parallel ranks give it, ``[n, ...]`` each, along the
            first dimension, without gradient; every rank must call it equally often.
        metrics: where :meth:`log` collects scalars.
    """

    input_ids: Tensor
    labels: Tensor
    document_ids: Tensor
    vocabulary: Vocabulary
    entropy: Tensor | None = None
    corpus_entropy: Tensor | None = None
    progress: float = 0.0
    global_step: int = 0
    epoch: int = 0
    micro_batch: int = 0
    rank: int = 0
    seed: int = 0
    stream: int = 0
    second_forward: SecondForward | None = None
    reference: Callable[[], Outputs] | None = None
    teacher: Callable[[], Outputs] | None = None
    holdout_gain: Tensor | None = None
    gather: Callable[[Tensor], Tensor] = of_this_rank_alone
    metrics: dict[str, Tensor] = field(default_factory=dict)

    @cached_property
    def valid(self) -> Tensor:
        """``[B, T]`` bool: tokens whose loss counts; nothing predicts the start of a document."""
        return predicted_labels(self.labels, self.document_ids) != IGNORE_INDEX

    @cached_property
    def alterable(self) -> Tensor:
        """``[B, T]`` bool: tokens that a regularizer may alter: neither special nor padding."""
        special_ids = ids_tensor(self.vocabulary.special_ids, self.input_ids.device)
        return (self.document_ids >= 0) & ~torch.isin(self.input_ids, special_ids)

    def generator(self) -> torch.Generator:
        """Return a generator on the device of the inputs, the same at every call of one step.

        It depends on seed, global step, micro-batch, rank and stream alone, so that a resumed run
        draws what the uninterrupted one would have drawn, and two hooks of one regularizer that
        draw alike get the same mask.
        """
        key = (self.seed, self.global_step, self.micro_batch, self.rank, self.stream)
        digest = hashlib.blake2b(repr(key).encode(), digest_size=8).digest()
        seed = int.from_bytes(digest, "little", signed=True)
        return torch.Generator(self.input_ids.device).manual_seed(seed)

    def log(self, name: str, value: Tensor) -> None:
        """Hand a scalar tensor to the loop's logger, averaged over micro-batches."""
        self.metrics[name] = value.detach()


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
        """Learn from an evaluation; by default, let the curriculum do so.

        What is learned must depend on nothing else: a resumed run tells all earlier evaluations
        again, in their order, and so needs to save nothing.

        Args:
            metrics: by name, such as ``val/loss`` or ``gap/loss_low_entropy``.
        """
        curriculum = getattr(self, "curriculum", None)
        if isinstance(curriculum, Curriculum):
            curriculum.on_evaluation(metrics)
