"""Training steps with packed documents, special tokens, padding, ties and unknown entropies."""

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from regularizers.base import Regularizer
from regularizers.compose import Regularizers
from regularizers.functional import is_document_start
from regularizers.outputs import Outputs
from regularizers.training_step import TrainingStep, Vocabulary

# The padding id is an ordinary token, so that only document_ids protect padding.
BOS_ID, EOS_ID, MASK_ID, PAD_ID = 0, 7, 63, 5
# Metrics of an evaluation; the loss is above the loss of the toy model on any batch.
EVALUATION = {
    "val/loss": 30.0,
    "gap/loss": 0.5,
    "gap/loss_low_entropy": 0.9,
    "gap/loss_high_entropy": 0.3,
}
VOCABULARY = Vocabulary(size=64, special_ids=(BOS_ID, EOS_ID, MASK_ID), mask_id=MASK_ID)


def report_evaluations(regularizer: Regularizer | Regularizers) -> None:
    """Report the evaluations of the first epoch: one before it, and one after it."""
    for _ in range(2):
        regularizer.on_evaluation(EVALUATION)


def make_document_ids(rows: int, length: int, generator: torch.Generator) -> Tensor:
    """Fill each row with documents of random lengths and a possibly empty tail of padding."""
    document_ids = torch.full((rows, length), -1)
    for row in range(rows):
        padding = int(torch.randint(max(1, length // 4), (), generator=generator))
        starts = torch.rand(length - padding, generator=generator) < 0.15
        starts[:1] = True
        document_ids[row, : length - padding] = starts.cumsum(0) - 1
    return document_ids


def make_step(rows: int = 3, length: int = 24, *, draw: int = 0, **overrides: Any) -> TrainingStep:
    """Build a step of a training loop.

    Args:
        rows: Batch size, B.
        length: Number of tokens in a row, T.
        draw: Seed of the contents.
        overrides: Fields of the step to set.

    Returns:
        A step whose entropies are multiples of 0.25 nats, so that there are ties. They are NaN at
        the starts of documents, at padding and at a few other positions.
    """
    generator = torch.Generator().manual_seed(draw)
    document_ids = make_document_ids(rows, length, generator)
    starts, padding = is_document_start(document_ids), document_ids < 0
    input_ids = torch.randint(1, VOCABULARY.size, (rows, length), generator=generator)
    # Some documents start without a special token, so that only their start protects it.
    with_bos = starts & (torch.rand(rows, length, generator=generator) < 0.5)
    input_ids = input_ids.masked_fill(with_bos, BOS_ID).masked_fill(padding, PAD_ID)
    ignored = starts | padding | (torch.rand(rows, length, generator=generator) < 0.1)
    entropy = torch.randint(16, (rows, length), generator=generator) / 4
    unknown = starts | padding | (torch.rand(rows, length, generator=generator) < 0.05)
    gains = torch.randint(8, (rows, length), generator=generator) / 8
    step = TrainingStep(
        input_ids=input_ids,
        labels=input_ids.masked_fill(ignored, -100),
        document_ids=document_ids,
        vocabulary=VOCABULARY,
        entropy=entropy.masked_fill(unknown, torch.nan),
        corpus_entropy=torch.linspace(0, 4, 65) ** 1.5,
        token_counts=torch.arange(VOCABULARY.size) % 5,
        # One gain per document.
        holdout_gain=gains.gather(1, document_ids.clamp(min=0)).masked_fill(padding, torch.nan),
        progress=0.5,
    )
    return replace(step, **overrides)


def slice_rows(step: TrainingStep, rows: slice) -> TrainingStep:
    """Return the step for a slice of the rows of the batch."""
    return replace(
        step,
        input_ids=step.input_ids[rows],
        labels=step.labels[rows],
        document_ids=step.document_ids[rows],
        entropy=None if step.entropy is None else step.entropy[rows],
        holdout_gain=None if step.holdout_gain is None else step.holdout_gain[rows],
        metrics={},
    )


def on_cuda(step: TrainingStep) -> tuple[TrainingStep, Outputs]:
    """Return the step on a GPU with everything that it can provide, and random outputs for it."""
    moved: dict[str, Any] = {
        name: value.cuda() for name, value in vars(step).items() if isinstance(value, Tensor)
    }
    step = replace(step, **moved)
    logits = torch.randn(*step.input_ids.shape, VOCABULARY.size, device="cuda")
    outputs = Outputs.from_logits(logits, step.labels, step.document_ids, top_k=20)
    step = replace(
        step,
        second_forward=lambda *_args, **_kwargs: outputs,
        reference=lambda: outputs,
        teacher=lambda: outputs,
    )
    return step, outputs
