"""What a hook may know about the step in which it is called.

B rows in the batch, T tokens in a row, D embedding dimensions.
"""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from typing import Protocol

import torch
from torch import Tensor

from regularizers.functional import IGNORE_INDEX, ids_tensor, predicted_labels
from regularizers.outputs import Outputs


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


def gather_single_rank(values: Tensor) -> Tensor:
    """Gather nothing: what a loop on one device does.

    >>> gather_single_rank(torch.ones(2))
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
    gather: Callable[[Tensor], Tensor] = gather_single_rank
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
