"""A log of a training run, and advice in the terms of its trainer."""

import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class KnownTrainer:
    """A trainer, and advice in the terms of its settings.

    Attributes:
        name: Name of the trainer or of its log.
        evaluate: How to evaluate, and how to evaluate more often; without a final period.
        keep_best: How to keep the best weights; without a final period.
        epochs: How to set the number of epochs, with ``{}`` for the number.
        checkpoint: Name of the folder with the weights after a step, with ``{}`` for the step;
            empty if there is no fixed name.
        counts_epochs: Whether a whole number in the log is that of the current epoch, rather than
            one of passes over the data.
    """

    name: str
    evaluate: str
    keep_best: str
    epochs: str
    checkpoint: str = ""
    counts_epochs: bool = False


TRANSFORMERS = KnownTrainer(
    "Trainer of Transformers",
    'pass `eval_dataset`, and set `eval_strategy="steps"` and `eval_steps` to a quarter of an '
    "epoch",
    "set `load_best_model_at_end=True` and save as often as you evaluate",
    "`num_train_epochs={}`",
    "checkpoint-{}",
)
LLAMA_FACTORY = KnownTrainer(
    "LLaMA-Factory",
    "set `val_size: 0.1`, `eval_strategy: steps` and `eval_steps` to a quarter of an epoch",
    "set `load_best_model_at_end: true` and save as often as you evaluate",
    "`num_train_epochs: {}`",
    "checkpoint-{}",
)
LIGHTNING = KnownTrainer(
    "CSV, as of Lightning's CSVLogger",
    "add a validation loop, and set `val_check_interval=0.25` of the Trainer",
    "add `ModelCheckpoint` with the validation loss as `monitor`",
    "`max_epochs={}`",
    counts_epochs=True,
)
TENSORBOARD = KnownTrainer(
    "TensorBoard",
    "evaluate on held-out text four times an epoch, and log that loss",
    "save weights at each evaluation, and keep those with the lowest validation loss",
    "{} epoch(s)",
    counts_epochs=True,
)


@dataclass(frozen=True, eq=False)
class TrainingLog:
    """A log of a training run.

    Attributes:
        name: Path as the user knows it.
        folder: Folder in which the trainer wrote.
        trainer: The trainer.
        table: One row for each entry, one column for each logged name. Empty cells are missing;
            values that are not numbers stay as text.
        notes: Sentences on what could not be read.
    """

    name: str
    folder: Path
    trainer: KnownTrainer
    table: "pd.DataFrame"
    notes: list[str] = field(default_factory=list)


def number(found: object) -> float | str | None:
    """Return a logged value for a table, in which one that is not finite is not a missing one.

    >>> number(2), number(float("nan")), number(10**400), number([1])
    (2, 'nan', 'inf', None)
    """
    if isinstance(found, bool) or not isinstance(found, int | float | str):
        return None
    if isinstance(found, str):
        return found
    try:
        return found if math.isfinite(found) else str(found)
    except OverflowError:  # an integer above all floats
        return "inf" if found > 0 else "-inf"
