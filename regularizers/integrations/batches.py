"""Documents in the batches of any collator, and tokens in a dataset.

B rows in the batch, T tokens in a row.
"""

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor

from regularizers.functional import IGNORE_INDEX, document_sum, ids_tensor, shift_right
from regularizers.training_step import Vocabulary


def documents_of(batch: Mapping[str, Any], vocabulary: Vocabulary) -> Tensor:
    """Number the documents in each row of a batch.

    A document starts where ``position_ids`` do not continue or ``attention_mask`` changes, as
    collators number packed documents in either. Padding has the mask 0; without a mask, a document
    of special tokens without labels is padding.

    Args:
        batch: ``input_ids`` and ``labels`` ``[B, T]`` int64; ``position_ids`` and
            ``attention_mask`` ``[B, T]`` if the collator returns them.
        vocabulary: Vocabulary of the tokenizer.

    Returns:
        Document numbers ``[B, T]`` int64, from 0 in each row; -1 for padding.

    Raises:
        ValueError: If a tensor is missing or has another shape.

    >>> ids = torch.tensor([[5, 6, 7, 0]])
    >>> batch = {"input_ids": ids, "labels": ids, "attention_mask": torch.tensor([[1, 1, 2, 0]])}
    >>> documents_of(batch, Vocabulary(8))
    tensor([[ 0,  0,  1, -1]])
    """
    ids, labels = (_required(batch, name) for name in ("input_ids", "labels"))
    starts = torch.zeros_like(ids, dtype=torch.bool)
    if labels.shape != ids.shape:
        raise ValueError(
            f"regularizers: expected labels of the shape {list(ids.shape)} of input_ids, got "
            f"{list(labels.shape)}: a causal LM has a label for each token"
        )
    positions, mask = (_optional(batch, name, ids) for name in ("position_ids", "attention_mask"))
    if positions is not None:
        starts |= positions != shift_right(positions, -1) + 1
    if mask is not None:
        starts |= mask.long() != shift_right(mask.long(), -1)
    starts[:, 0] = False
    documents = starts.cumsum(1)
    if mask is None:
        special = torch.isin(ids, ids_tensor(vocabulary.special_ids, ids.device))
        matters = ~special | (labels != IGNORE_INDEX)
        mask = document_sum(matters.long(), documents)
    # Padding before the first token may have a number of its own.
    padding = mask == 0
    first = documents.masked_fill(padding, ids.shape[1]).amin(1, keepdim=True)
    return (documents - first).masked_fill(padding, -1)


def token_counts(dataset: Iterable[Mapping[str, Any]], size: int) -> Tensor:
    """Count how often each token id occurs in a tokenized dataset.

    Args:
        dataset: Rows with ``input_ids``, and ``attention_mask`` if they are padded.
        size: Vocabulary size, V.

    Returns:
        Counts ``[V]`` int64.

    Raises:
        ValueError: If a row has no token ids, or ids outside of the vocabulary.

    >>> token_counts([{"input_ids": [2, 2, 0], "attention_mask": [1, 1, 0]}], 3)
    tensor([0, 0, 2])
    """
    counts = torch.zeros(size, dtype=torch.int64)
    for row in dataset:
        if "input_ids" not in row:
            raise ValueError(
                "regularizers: expected a train_dataset with input_ids, because a regularizer "
                f"counts tokens, got rows with {', '.join(row)}: tokenize it before"
            )
        ids = torch.as_tensor(row["input_ids"]).flatten()
        if "attention_mask" in row:
            ids = ids[torch.as_tensor(row["attention_mask"]).flatten() > 0]
        if outside := ids[(ids < 0) | (ids >= size)].tolist():
            raise ValueError(
                f"regularizers: expected token ids from 0 to {size - 1} in train_dataset, got "
                f"{outside[0]}: tokenize it with the tokenizer of the model"
            )
        counts.scatter_add_(0, ids, torch.ones_like(ids))
    return counts


def _required(batch: Mapping[str, Any], name: str) -> Tensor:
    value = batch.get(name)
    if not isinstance(value, Tensor) or value.dim() != 2:
        got = f"shape {list(value.shape)}" if isinstance(value, Tensor) else f"{list(batch)}"
        raise ValueError(
            f"regularizers: expected batches with {name} of shape [rows, tokens], got {got}: use a "
            "collator for causal language modeling, which returns input_ids and labels"
        )
    return value


def _optional(batch: Mapping[str, Any], name: str, ids: Tensor) -> Tensor | None:
    value = batch.get(name)
    if value is None:
        return None
    if not isinstance(value, Tensor) or value.shape != ids.shape:
        shape = list(value.shape) if isinstance(value, Tensor) else type(value).__name__
        raise ValueError(
            f"regularizers: expected {name} of the shape {list(ids.shape)} of input_ids, got "
            f"{shape}: regularizers read the documents of a batch there"
        )
    return value
