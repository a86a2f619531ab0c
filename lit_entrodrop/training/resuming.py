"""Whether a run may go on from a checkpoint."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import lightning as L

from lit_entrodrop.runs.checkpoints.reading import check_same_strategy

# What a run goes on from, beside Lightning's own.
KEPT = {
    "entropies",
    "evaluations",
    "loops",
    "metrics",
    "optimizer_class",
    "pending_metrics",
    "provenance",
    "trained_on",
}


def check_can_resume(
    checkpoint: Mapping[str, Any], trainer: L.Trainer, trained_on: str, seed: int
) -> None:
    """Refuse a checkpoint from which a run would not go on as it began.

    Args:
        checkpoint: written by `fit`, or not.
        trainer: of the run.
        trained_on: fingerprint of the run's training blocks.
        seed: of the run.

    Raises:
        ValueError: if data, seed or strategy are others, or it was not written by `fit`.
    """
    if missing := sorted(KEPT - checkpoint.keys()):
        raise ValueError(
            f"ckpt_path: expected a checkpoint written by `fit`, got one without {missing[0]}: "
            "name another"
        )
    if checkpoint["trained_on"] != trained_on:
        raise ValueError(
            "data: expected the training blocks of the checkpoint, got others: resume with the "
            "corpus, tokenizer, splits, data.block_size and seed of the run, or start a new "
            "run from the exported model"
        )
    if (given := checkpoint["provenance"]["seed"]) != seed:
        raise ValueError(
            f"seed_everything: expected {given}, by which the run orders its data and draws its "
            f"masks, got {seed}: resume with the former"
        )
    own, path = type(trainer.strategy).__name__, Path(str(trainer.ckpt_path))
    check_same_strategy(own, dict(checkpoint), path)
