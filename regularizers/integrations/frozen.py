"""Passes without gradient through frozen models, and counts of tokens."""

from collections.abc import Callable, Iterable, Mapping
from contextlib import nullcontext
from typing import Any

import torch
from torch import Tensor, nn

from regularizers.outputs import Outputs

Run = Callable[[nn.Module], Outputs]


def scoring(model: nn.Module, reference: nn.Module | None) -> Callable[[Run], Outputs]:
    """Return a function that runs a frozen model in eval mode, without gradient.

    Args:
        model: Trained model.
        reference: Frozen model; None for the trained model without its adapters of peft.
    """

    def score(run: Run) -> Outputs:
        frozen = model if reference is None else reference
        within = model.disable_adapter() if reference is None else nullcontext()  # type: ignore[operator]
        training = frozen.training
        frozen.eval()
        try:
            with torch.no_grad(), within:
                return run(frozen)
        finally:
            frozen.train(training)

    return score


def token_counts(dataset: Iterable[Mapping[str, Any]], size: int) -> Tensor:
    """Count how often each token id occurs in a tokenized dataset.

    Args:
        dataset: Rows with ``input_ids``, and ``attention_mask`` if they are padded.
        size: Vocabulary size, V.

    Returns:
        Counts ``[V]`` int64.

    Raises:
        ValueError: If a row has no token ids.

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
        counts.scatter_add_(0, ids, torch.ones_like(ids))
    return counts
