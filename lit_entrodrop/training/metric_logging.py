"""Logging of a run's metrics."""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import lightning as L
from lightning.pytorch.utilities import rank_zero_info, rank_zero_warn
from torch import Tensor

from lit_entrodrop.evaluation.metrics.run_metrics import RunMetrics
from lit_entrodrop.runs.metric_name import AVERAGED, SKIPPED_STEPS, TASK, TRAIN_LOSS, MetricName
from lit_entrodrop.runs.metrics_file import MetricsFile
from lit_entrodrop.runtime.ranks import gather
from lit_entrodrop.training.loggers import TensorBoard
from lit_entrodrop.training.monitored import check_monitored_values
from regularizers import Curriculum, Regularizers

# Splits whose losses are only in the logs.
UNPRINTED = {"clean_train", *(f"{split}{AVERAGED}" for split in ("clean_train", "gap"))}


class MetricLogging:
    """Logs training metrics every few steps, and the metrics of each evaluation.

    Loggers receive rows directly, not through ``LightningModule.log``. Lightning takes the number
    of a row from a metric named ``step``, which would then name all checkpoints as well.

    Args:
        metrics: Accumulators of the metrics.
        regularizers: Regularizers, whose strengths are logged.
        curriculum: Further curriculum to which evaluations are passed; None for none.
    """

    def __init__(
        self, metrics: RunMetrics, regularizers: Regularizers, curriculum: Curriculum | None = None
    ) -> None:
        self._metrics = metrics
        self._regularizers = regularizers
        self._followers: list[Regularizers | Curriculum] = [regularizers]
        if curriculum is not None:
            self._followers.append(curriculum)
        # The state of regularizers that follow evaluations is a function of this history alone. So
        # a checkpoint saves the history in place of their state, under every strategy.
        self._evaluations: list[dict[str, float]] = []
        self.last_training: dict[str, float] = {}
        self.last_evaluation: dict[str, float] = {}
        self._unshown_loss: float | None = None
        self._schedules: dict[str, float] = {}

    def note_schedules(self, schedules: Mapping[str, float], progress: float) -> None:
        """Keep the schedules and the strengths of the coming step.

        After the step, the optimizer and the progress have those of the next one.
        """
        self._schedules = {**self._regularizers.strengths(progress), **schedules}

    def log_training_if_due(self, trainer: L.Trainer) -> None:
        """Log the training metrics every ``trainer.log_every_n_steps`` optimizer steps."""
        every: int = trainer.log_every_n_steps  # type: ignore[attr-defined]
        if every and trainer.global_step % every == 0:
            self.log_training(trainer)

    def log_training(self, trainer: L.Trainer) -> None:
        """Log the training metrics since the last log, and the schedules at the last step."""
        reduce_sum = partial(trainer.strategy.reduce, reduce_op="sum")
        if not (means := self._metrics.training_means.pop(reduce_sum)):
            return
        self._unshown_loss = means.get(TRAIN_LOSS)
        if not means.get(SKIPPED_STEPS):
            means.pop(SKIPPED_STEPS, None)
        else:
            rank_zero_warn(
                "regularizers: in some optimizer steps no token counted in the loss, so these left "
                f"the weights unchanged ({SKIPPED_STEPS} in the log has their share): raise "
                "data.batch_size or trainer.accumulate_grad_batches, or weaken the regularizers"
            )
        means |= self._schedules
        means["epoch"] = trainer.current_epoch
        self.last_training = means
        for logger in trainer.loggers:
            logger.log_metrics(means, trainer.global_step)

    def show_loss(self, log: Callable[..., None]) -> None:
        """Show the loss by ``LightningModule.log``, which Lightning forbids during a save."""
        if self._unshown_loss is not None:
            log(TRAIN_LOSS, self._unshown_loss, prog_bar=True, logger=False)
            self._unshown_loss = None

    def log_evaluation(self, trainer: L.Trainer, metrics: Mapping[str, Tensor]) -> None:
        """Log an evaluation during training, and pass it to the regularizers.

        The metrics are equal on every rank.
        """
        self._print(trainer, metrics)
        check_monitored_values(trainer, metrics)
        self._add_evaluation(metrics)
        self.last_evaluation = self._evaluations[-1]
        row = {**self.last_evaluation, "epoch": trainer.current_epoch}
        for logger in trainer.loggers:
            logger.log_metrics(row, trainer.global_step)
            logger.save()

    def log_initial_evaluation(self, trainer: L.Trainer, metrics: Mapping[str, Tensor]) -> None:
        """Log the evaluation of the initial model, where the curves start; not after a resume."""
        if trainer.global_step > 0:
            return
        if trainer.num_sanity_val_steps == float("inf"):
            # Otherwise, a part of the tokens was evaluated.
            check_monitored_values(trainer, metrics)
        if not self._evaluations:
            self._add_evaluation(metrics)
        for logger in trainer.loggers:
            logger.log_metrics({name: value.item() for name, value in metrics.items()}, step=0)

    def state_dict(self, trainer: L.Trainer) -> dict[str, Any]:
        """Return the entries of a checkpoint; called on every rank."""
        for logger in trainer.loggers:
            # Rows that a resumed run does not write again must not be lost.
            logger.save()
        return {
            "pending_metrics": gather(self._metrics.training_means.state_dict()),
            "metrics": [file.rows for file in _metrics_files(trainer)],
            "evaluations": self._evaluations,
        }

    def load_state_dict(self, checkpoint: Mapping[str, Any], trainer: L.Trainer) -> None:
        """Restore the metrics of a checkpoint, and continue its logs."""
        self.last_evaluation = checkpoint["provenance"]["metrics"]
        pending = checkpoint["pending_metrics"]
        if len(pending) == trainer.world_size:
            pending = pending[trainer.global_rank : trainer.global_rank + 1]
        elif trainer.global_rank > 0:
            pending = []
        for means in pending:
            self._metrics.training_means.load_state_dict(means)
        for file, rows in zip(_metrics_files(trainer), checkpoint["metrics"], strict=False):
            file.restore(rows)
        for logger in trainer.loggers:
            if isinstance(logger, TensorBoard):
                logger.continue_after(checkpoint["global_step"])
        for metrics in checkpoint["evaluations"]:
            self._add_evaluation(metrics)

    def _add_evaluation(self, metrics: Mapping[str, Tensor | float]) -> None:
        self._evaluations.append({name: float(value) for name, value in metrics.items()})
        for follower in self._followers:
            follower.on_evaluation(self._evaluations[-1])

    def _print(self, trainer: L.Trainer, metrics: Mapping[str, Tensor]) -> None:
        parsed = {name: MetricName.parse(name) for name in metrics}
        shown = ", ".join(
            f"{name} {metrics[name]:.3f}"
            for name, each in parsed.items()
            if each.split == TASK
            or (each.kind == "loss" and each.split == "val")
            or (each.kind == "loss" and not each.bucket and each.split not in UNPRINTED)
        )
        where = f"epoch {trainer.current_epoch + 1}, step {trainer.global_step}"
        rank_zero_info(f"{where}: {shown}")


def _metrics_files(trainer: L.Trainer) -> list[MetricsFile]:
    return [logger for logger in trainer.loggers if isinstance(logger, MetricsFile)]
