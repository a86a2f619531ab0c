"""Scores on the user's task during training."""

import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, final

import lightning as L
import torch
from lightning.pytorch.trainer.states import TrainerFn

from lit_entrodrop.evaluation.task.settings import TaskSettings
from lit_entrodrop.evaluation.task.task import Task
from lit_entrodrop.model.building import build_hf_config
from lit_entrodrop.runs.metric_name import TASK, MetricName
from lit_entrodrop.runs.task_scores import (
    mean_score,
    remove_task_scores_after,
    task_scores_path,
    write_task_scores,
)
from lit_entrodrop.runtime.ranks import data_rank
from lit_entrodrop.runtime.setting_checks import check_at_least
from lit_entrodrop.training.callbacks.checkpoints import ends_epoch


@final
@dataclass(eq=False)
class TaskScores(TaskSettings, L.Callback):
    """Score the model on a task of your own, by greedy decoding or by comparing choices.

    The mean score is a metric, such as ``task/exact_match``; ``evaluations/`` gets output and score
    of every item. The initial model is scored too. Training is the same with and without it.

    Args:
        every_n_epochs: Number of epochs between scores, which are computed at the validation that
            ends an epoch. The last epoch always has a score. null for a score at every validation.
    """

    every_n_epochs: int | None = 1
    _task: Task | None = field(init=False, default=None, repr=False)
    _ends_epoch: bool = field(init=False, default=False, repr=False)

    def __post_init__(self) -> None:
        super().__post_init__()
        check_at_least(1, **{"monitors.task.every_n_epochs": self.every_n_epochs})

    @property
    def metric_name(self) -> str:
        """Name of the mean score among the metrics of the run."""
        return str(MetricName(TASK, self.metric))

    def setup(self, trainer: L.Trainer, pl_module: Any, stage: str) -> None:
        """Read the items.

        Raises:
            ValueError: If an item cannot be used, or the run has no validation.
        """
        self._folder = Path(trainer.strategy.broadcast(trainer.default_root_dir))
        if stage == TrainerFn.FITTING:
            self._check(trainer, pl_module)
        if self._task is None:
            config = build_hf_config(pl_module.lm)
            context = getattr(config, "max_position_embeddings", None) or math.inf
            self._task = Task(self, pl_module.data.tokenizer, context)

    def on_train_start(self, trainer: L.Trainer, pl_module: Any) -> None:
        """Remove scores that the resumed run will repeat."""
        if trainer.is_global_zero:
            remove_task_scores_after(self._folder, trainer.global_step)

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: Any, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Record whether the epoch ends."""
        self._ends_epoch = ends_epoch(trainer, batch_idx)

    def on_validation_epoch_end(self, trainer: L.Trainer, pl_module: Any) -> None:
        """Score the model, before the module logs the metrics of the validation."""
        if trainer.state.fn != TrainerFn.FITTING:
            self._score(trainer, pl_module, pl_module.position.steps, "validation")
        elif self._is_due(trainer, pl_module):
            self._score(trainer, pl_module, trainer.global_step, None)

    def on_test_epoch_end(self, trainer: L.Trainer, pl_module: Any) -> None:
        """Score the model, before the module logs the metrics of the test split."""
        self._score(trainer, pl_module, pl_module.position.steps, "test")

    def _check(self, trainer: L.Trainer, pl_module: Any) -> None:
        """Refuse a fit without validation, and a callback that would wait for a score."""
        if not (pl_module.data.evaluated and trainer.limit_val_batches):
            raise ValueError(
                "monitors.task: expected validation, at which the task is scored, got none: set "
                "data.validation to a share such as 0.1, and trainer.limit_val_batches to 1.0"
            )
        per_epoch = trainer.val_check_interval == 1.0 and trainer.check_val_every_n_epoch
        always = self.every_n_epochs is None or (self.every_n_epochs == 1 and per_epoch)
        callbacks: list[Any] = trainer.callbacks  # type: ignore[attr-defined]
        for each in callbacks:
            if getattr(each, "monitor", None) != self.metric_name:
                continue
            if not always:
                raise ValueError(
                    "monitors.task.every_n_epochs: expected a score at each validation, because "
                    f"{type(each).__name__} monitors {self.metric_name}, got "
                    f"{self.every_n_epochs}: set it to null"
                )

    def _is_due(self, trainer: L.Trainer, pl_module: Any) -> bool:
        if trainer.sanity_checking:
            # A resumed run has been scored already.
            return trainer.global_step == 0
        if self.every_n_epochs is None or trainer.global_step >= pl_module.total_steps:
            return True
        return self._ends_epoch and (trainer.current_epoch + 1) % self.every_n_epochs == 0

    def _score(self, trainer: L.Trainer, pl_module: Any, step: int, split: str | None) -> None:
        assert self._task is not None, "setup has read it"
        with trainer.precision_plugin.forward_context():
            scores = self._task.score(pl_module.causal_lm, data_rank(trainer))
        pl_module.metrics.add_scores({self.metric_name: torch.tensor(mean_score(scores))})
        if trainer.is_global_zero:
            write_task_scores(task_scores_path(self._folder, step, split), scores)
