"""What happens around the steps of a Trainer: epochs, evaluations, checkpoints."""

import os
import warnings
from collections.abc import Mapping
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
from transformers import TrainerCallback
from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR, get_last_checkpoint

from regularizers.integrations.regularization import Regularization

STATE_FILE = "regularizers.pt"


class RegularizationCallback(TrainerCallback):
    """Switches entropies at epochs, reports evaluations, saves and restores the state.

    Args:
        regularization: State of the regularizers.
    """

    def __init__(self, regularization: Regularization) -> None:
        self._regularization = regularization
        #: Checkpoint folder that the coming training resumes; None for none.
        self.checkpoint: Path | None = None
        self._within_epoch = False

    def resume_from(self, given: Any, output_dir: str | None) -> None:
        """Note the checkpoint that is given to ``Trainer.train``."""
        folder = get_last_checkpoint(output_dir) if given is True else given
        self.checkpoint = Path(folder) if folder else None

    def on_train_begin(self, args: Any, state: Any, control: Any, **others: Any) -> None:
        """Restore the state of the checkpoint."""
        self._regularization.start_training()
        self._within_epoch = bool((state.epoch or 0) % 1)
        if self.checkpoint is None:
            return
        for metrics in state.log_history:
            self._report(metrics)
        path = self.checkpoint / STATE_FILE
        if path.is_file():
            self._regularization.load_state_dict(_read(path))
        else:
            warnings.warn(
                f"regularizers: expected {STATE_FILE} in {self.checkpoint}, got none: entropies of "
                "the last epoch are unknown until the next one",
                stacklevel=2,
            )

    def on_epoch_begin(self, args: Any, state: Any, control: Any, **others: Any) -> None:
        """Switch to the entropies that the last epoch recorded."""
        # A run that resumes within an epoch has switched before.
        if not self._within_epoch:
            self._regularization.entropies.start_epoch()
        self._within_epoch = False

    def on_evaluate(self, args: Any, state: Any, control: Any, **others: Any) -> None:
        """Pass the metrics to regularizers that follow them."""
        self._report(others["metrics"])

    def on_save(self, args: Any, state: Any, control: Any, **others: Any) -> None:
        """Save the state beside the checkpoint."""
        saved = self._regularization.state_dict()
        # A trial of a search has its own folder, and none resumes.
        if args.should_save and not state.is_hyper_param_search:
            folder = Path(args.output_dir) / f"{PREFIX_CHECKPOINT_DIR}-{state.global_step}"
            unfinished = folder / f"{STATE_FILE}.tmp"
            torch.save(saved, unfinished)
            os.replace(unfinished, folder / STATE_FILE)

    def _report(self, metrics: Mapping[str, Any]) -> None:
        if "eval_loss" in metrics:
            numbers = {name: each for name, each in metrics.items() if isinstance(each, float)}
            regularizers = self._regularization.regularizers
            regularizers.on_evaluation({**numbers, "val/loss": metrics["eval_loss"]})


def _read(path: Path) -> dict[str, Any]:
    try:
        saved = torch.load(path, weights_only=True, map_location="cpu")
    except (RuntimeError, EOFError, UnpicklingError) as error:
        raise _unusable(path, "a damaged file") from error
    if not isinstance(saved, dict) or saved.keys() != Regularization.STATE:
        raise _unusable(path, "another file")
    return saved


def _unusable(path: Path, got: str) -> ValueError:
    return ValueError(
        f"regularizers: expected the state of regularizers in {path}, got {got}: resume from "
        "another checkpoint, or delete the file, which loses the entropies of the last epoch and "
        "strengths that adapt"
    )
