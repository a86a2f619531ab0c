"""Checks of a checkpoint, before a run resumes from it or evaluates its model."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import lightning as L
from lightning.pytorch.trainer.states import TrainerFn
from lightning.pytorch.utilities import rank_zero_warn
from torch import Tensor

from lit_entrodrop.data import TextDataModule
from lit_entrodrop.model.config import LMConfig
from lit_entrodrop.runs.checkpoints.lazy_weights import shapes
from lit_entrodrop.runs.checkpoints.reading import check_same_model, check_same_strategy
from lit_entrodrop.training.preflight.model import check_same_function

# State that a fit saves in addition to Lightning's own.
REQUIRED_KEYS = {
    "entropies",
    "evaluations",
    "loops",
    "metrics",
    "optimizer_class",
    "pending_metrics",
    "provenance",
    "trained_on",
}


def check_checkpoint(
    checkpoint: Mapping[str, Any],
    trainer: L.Trainer,
    data: TextDataModule,
    seed: int,
    state_dict: Mapping[str, Tensor],
    lm: LMConfig,
) -> None:
    """Check that a run can resume from a checkpoint, or evaluate its model.

    Raises:
        ValueError: If the checkpoint is of another model; or, to resume, of other data, another
            seed or another strategy, or not written by `fit`.
    """
    trained_on = data.fingerprint("train")
    if trainer.state.fn == TrainerFn.FITTING:
        _check_can_resume(checkpoint, trainer, trained_on, seed)
    # The strategy compared those of a folder of shards when it loaded them.
    if "state_dict" in checkpoint:
        check_same_model(shapes(state_dict), shapes(checkpoint["state_dict"]))
    check_same_function(LMConfig.from_dict(checkpoint["lm"]), lm)
    evaluates = trainer.state.fn in (TrainerFn.VALIDATING, TrainerFn.TESTING)
    if evaluates and checkpoint.get("trained_on") != trained_on:
        rank_zero_warn(
            "data: this model was trained on other blocks than these settings select for training, "
            "so it may have been trained on blocks that are evaluated now: set data.validation and "
            "data.test at `fit` already, and to the same values here"
        )


def _check_can_resume(
    checkpoint: Mapping[str, Any], trainer: L.Trainer, trained_on: str, seed: int
) -> None:
    if missing := sorted(REQUIRED_KEYS - checkpoint.keys()):
        raise ValueError(
            f"ckpt_path: expected a checkpoint written by `fit`, got one without {missing[0]}: "
            "name another checkpoint"
        )
    if checkpoint["trained_on"] != trained_on:
        raise ValueError(
            "data: expected the training blocks of the checkpoint, got others: resume with the "
            "corpus, tokenizer, splits, data.block_size and seed of the run, or start a new "
            "run from the exported model"
        )
    if (given := checkpoint["provenance"]["seed"]) != seed:
        raise ValueError(
            f"seed_everything: expected {given}, which decides the order of data and the masks of "
            f"the run, got {seed}: resume with {given}"
        )
    current, path = type(trainer.strategy).__name__, Path(str(trainer.ckpt_path))
    check_same_strategy(current, dict(checkpoint), path)
