"""Information about the current step for the hooks of a regularizer.

B rows in the batch, T tokens in a row, D embedding dimensions.
"""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Protocol

import torch
from torch import Tensor

from regularizers.functional import IGNORE_INDEX, ids_tensor, predicted_labels
from regularizers.outputs import Outputs


@dataclass(frozen=True)
class Vocabulary:
    """Size and special ids of a vocabulary.

    Args:
        size: Number of token ids, V.
        special_ids: Ids of control tokens, which regularizers never change.
        mask_id: Id of the mask token; None if there is none.
    """

    size: int
    special_ids: tuple[int, ...] = ()
    mask_id: int | None = None

    @classmethod
    def of_tokenizer(cls, tokenizer: Any) -> "Vocabulary":
        """Return the vocabulary of a tokenizer of Transformers.

        Special ids are the ids of named special tokens (bos, eos, pad, …) and of added tokens
        marked as special, such as turn markers of chat templates.

        Args:
            tokenizer: A ``PreTrainedTokenizerBase``.
        """
        added = tokenizer.added_tokens_decoder.items()
        special_ids = {*tokenizer.all_special_ids, *(id for id, token in added if token.special)}
        return cls(len(tokenizer), tuple(sorted(special_ids)), tokenizer.mask_token_id)


class SecondForward(Protocol):
    """Run the trained model again, with gradient."""

    def __call__(
        self, input_ids: Tensor | None = None, perturb: Callable[[Tensor], Tensor] | None = None
    ) -> Outputs:
        """Return the outputs for other inputs against the same labels.

        Without arguments, the first pass is repeated with its corruptions and with new dropout
        inside the model. Logits are included if they are required.

        Args:
            input_ids: Token ids ``[B, T]`` int64; None for the clean tokens.
            perturb: Function that maps embeddings ``[B, T, D]`` to new ones; None for clean
                embeddings.
        """


def gather_single_rank(values: Tensor) -> Tensor:
    """Return the values of the only rank, for loops on one device.

    >>> gather_single_rank(torch.ones(2))
    tensor([1., 1.])
    """
    return values


@dataclass(frozen=True)
class TrainingStep:
    """One micro-batch and its position in training.

    Args:
        input_ids: Uncorrupted token ids ``[B, T]`` int64.
        labels: Labels ``[B, T]`` int64, aligned with ``input_ids`` (not shifted); -100 is ignored.
        document_ids: Number ``[B, T]`` int64 of each packed document in its row, -1 for padding.
        vocabulary: Vocabulary size and special ids of the tokenizer.
        entropy: Entropies ``[B, T]`` fp32 of p(· | x_<t) in nats, NaN where unknown; None if not
            required.
        corpus_entropy: Evenly spaced quantiles ``[Q]`` fp32 of the entropies of the corpus.
        token_counts: Occurrences ``[V]`` int64 of each token id in the training text; None if not
            required.
        progress: Fraction of all optimizer steps that are done, in [0, 1].
        global_step: Number of optimizer steps that are done.
        epoch: Number of passes over the data that are done.
        micro_batch: Index of this micro-batch in its optimizer step.
        rank: Data-parallel rank; the ranks of one tensor-parallel group share it.
        seed: Seed of the run.
        stream: Index that separates the random numbers of several regularizers.
        second_forward: Function that runs the model again; None if not required.
        reference: Function that runs the frozen reference model on the clean inputs; None if not
            required.
        teacher: Function that runs the model with the moving average of its weights on the clean
            inputs, in train mode and without gradient; None if not required.
        holdout_gain: Gains ``[B, T]`` fp32, in nats per token: how much the loss of a token's
            document falls, under the model before training, if similar holdout documents precede
            it. NaN where unknown; None if not required.
        gather: Function that concatenates the tensors ``[n, ...]`` of all data-parallel ranks along
            the first dimension, without gradient; all ranks must call it the same number of times.
        metrics: Scalars collected by :meth:`log`.
    """

    input_ids: Tensor
    labels: Tensor
    document_ids: Tensor
    vocabulary: Vocabulary
    entropy: Tensor | None = None
    corpus_entropy: Tensor | None = None
    token_counts: Tensor | None = None
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
        """``[B, T]`` bool: tokens whose loss counts; first tokens of documents never do."""
        return predicted_labels(self.labels, self.document_ids) != IGNORE_INDEX

    @cached_property
    def alterable(self) -> Tensor:
        """``[B, T]`` bool: tokens that a regularizer may change: neither special nor padding."""
        special_ids = ids_tensor(self.vocabulary.special_ids, self.input_ids.device)
        return (self.document_ids >= 0) & ~torch.isin(self.input_ids, special_ids)

    def generator(self) -> torch.Generator:
        """Return a generator on the device of the inputs, in the same state at each call.

        Its seed depends only on run seed, global step, micro-batch, rank and stream. A resumed run
        thus draws the same numbers, and two hooks of one regularizer draw the same mask.
        """
        key = (self.seed, self.global_step, self.micro_batch, self.rank, self.stream)
        digest = hashlib.blake2b(repr(key).encode(), digest_size=8).digest()
        seed = int.from_bytes(digest, "little", signed=True)
        return torch.Generator(self.input_ids.device).manual_seed(seed)

    def mean_over_ranks(self, total: Tensor, count: Tensor) -> Tensor:
        """Divide the sum of the totals of all data-parallel ranks by the sum of their counts.

        Args:
            total: Scalar, a sum over the tokens of this rank.
            count: Scalar, the number of these tokens or the sum of their weights.

        Returns:
            A scalar without gradient, the same on all ranks; 0 if all counts are 0.

        >>> from regularizers.testing import make_step
        >>> make_step().mean_over_ranks(torch.tensor(6.0), torch.tensor(3.0))
        tensor(2.)
        """
        sums = self.gather(torch.stack([total, count]).detach()[None]).sum(0)
        return sums[0] / sums[1].clamp(min=1e-8)

    def log(self, name: str, value: Tensor) -> None:
        """Report a scalar tensor to the loggers, averaged over micro-batches."""
        self.metrics[name] = value.detach()
