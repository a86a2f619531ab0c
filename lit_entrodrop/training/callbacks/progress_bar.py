"""Progress bar of a run."""

import math
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, replace
from datetime import timedelta
from time import monotonic
from typing import Any, final

import lightning as L
from lightning.pytorch.callbacks import RichProgressBar
from lightning.pytorch.callbacks.progress.rich_progress import BatchesProcessedColumn
from lightning.pytorch.utilities import rank_zero_info
from rich.progress import ProgressColumn

from lit_entrodrop.runs.metric_name import TRAIN_LOSS, VALIDATION_LOSS, MetricName
from lit_entrodrop.runtime.progress import (
    SECONDS_PER_LINE,
    Advance,
    bar_columns,
    can_draw,
    logs_above_bar,
    progress,
)
from lit_entrodrop.training.callbacks.throughput import Throughput


@final
@dataclass(eq=False)
class RunProgressBar(RichProgressBar):
    """Show losses (also by entropy), regularizer strength, speed and the time left.

    The bar covers one epoch, counted from 1. The time left covers the whole run, including
    validations and checkpoints at their pace so far. Without a terminal, lines replace the bar.

    Args:
        refreshes_per_second: Maximum number of updates of the bar per second. Default: 2.
        seconds_per_line: Minimum time between two lines without a terminal, in seconds; 0 prints
            none. Default: 30.
    """

    refreshes_per_second: float = 2.0
    seconds_per_line: float = SECONDS_PER_LINE

    def __post_init__(self) -> None:
        if not (self.refreshes_per_second > 0 and self.seconds_per_line >= 0):
            raise ValueError(
                "progress_bar: expected refreshes_per_second > 0 and seconds_per_line >= 0, got "
                f"{self.refreshes_per_second} and {self.seconds_per_line}"
            )
        super().__init__(refresh_rate=self.refreshes_per_second)  # type: ignore[arg-type]
        self._next = 0.0
        # Neither is known during the evaluation before the first step.
        self._started: float | None = None
        self._first_step = 0
        self._logs = ExitStack()
        self._evaluation = ExitStack()
        self._advance: Advance = lambda count=1: None
        self._draws = can_draw()

    @property
    def sanity_check_description(self) -> str:
        """Title of the bar before the first step."""
        return "Evaluating the initial model"

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        """Draw only on the first rank, and only if standard output supports it."""
        super().setup(trainer, pl_module, stage)
        if not self._draws:
            self.disable()

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Start the clock of the time left."""
        super().on_train_start(trainer, pl_module)
        self._started, self._first_step = monotonic(), trainer.global_step
        self._next = self._started + (0 if self._draws else self.seconds_per_line)

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: Any, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Update the bar, or print a line, if one is due."""
        if (now := monotonic()) < self._next:
            return
        if self._draws:
            self._next = now + 1 / self.refreshes_per_second
            super().on_train_batch_end(trainer, pl_module, outputs, batch, batch_idx)
        elif self.seconds_per_line:
            self._next = now + self.seconds_per_line
            self._print(trainer, pl_module)

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Show the epoch as complete."""
        self._update(self.train_progress_bar_id, trainer.fit_loop.batch_idx + 1)
        super().on_train_epoch_end(trainer, pl_module)

    def on_validation_batch_end(self, *args: Any, **kwargs: Any) -> None:
        """Count a batch as done."""
        super().on_validation_batch_end(*args, **kwargs)
        self._advance()

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """End the bar, or the lines."""
        self._evaluation.close()
        super().on_validation_end(trainer, pl_module)

    def on_test_batch_end(self, *args: Any, **kwargs: Any) -> None:
        """Count a batch as done."""
        super().on_test_batch_end(*args, **kwargs)
        self._advance()

    def on_test_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """End the bar, or the lines."""
        self._evaluation.close()
        super().on_test_end(trainer, pl_module)

    def on_predict_batch_end(self, *args: Any, **kwargs: Any) -> None:
        """Count a batch as done."""
        super().on_predict_batch_end(*args, **kwargs)
        self._advance()

    def on_predict_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """End the bar, or the lines."""
        self._evaluation.close()
        super().on_predict_end(trainer, pl_module)

    def get_metrics(
        self, trainer: L.Trainer, pl_module: L.LightningModule
    ) -> dict[str, int | str | float | dict[str, float]]:
        """Return the values shown next to the bar, by name, without reading from a device."""
        return dict(self._shown(trainer, pl_module))

    def configure_columns(self, trainer: L.Trainer) -> list[ProgressColumn]:
        """Return the columns of the bar, without Lightning's times, which cover an epoch only."""
        return [*bar_columns(), BatchesProcessedColumn(style="")]

    def _init_progress(self, trainer: L.Trainer) -> None:
        super()._init_progress(trainer)
        self._logs.close()
        self._logs.enter_context(logs_above_bar())
        if not (trainer.training or self._draws) and self.seconds_per_line:
            self._start_lines(trainer)

    def _stop_progress(self) -> None:
        self._logs.close()
        super()._stop_progress()

    def _start_lines(self, trainer: L.Trainer) -> None:
        if trainer.sanity_checking:
            title, batches = self.sanity_check_description, trainer.num_sanity_val_batches
        elif trainer.validating:
            title, batches = self.validation_description, trainer.num_val_batches
        elif trainer.testing:
            title, batches = self.test_description, trainer.num_test_batches
        else:
            title, batches = self.predict_description, trainer.num_predict_batches
        total = None if math.inf in batches else int(sum(batches))
        lines = progress(title, total, unit="batches", seconds_per_line=self.seconds_per_line)
        self._evaluation.close()
        self._advance = self._evaluation.enter_context(lines)

    def _shown(self, trainer: L.Trainer, pl_module: L.LightningModule) -> Iterator[tuple[str, str]]:
        logs = getattr(pl_module, "metric_logging", None)
        training = logs.last_training if logs else {}
        evaluation = logs.last_evaluation if logs else {}
        every: int = trainer.log_every_n_steps  # type: ignore[attr-defined]
        if logs and not training and every:
            # Earlier, a read would make the step wait for its device.
            yield TRAIN_LOSS, f"from step {(trainer.global_step // every + 1) * every}"
        strengths = [name for name in training if name.endswith("/strength")]
        for name in [TRAIN_LOSS, *strengths]:
            if name in training:
                yield name, f"{training[name]:.3f}"
        if VALIDATION_LOSS in evaluation:
            yield VALIDATION_LOSS, with_buckets(VALIDATION_LOSS, evaluation)
        speeds = (each for each in trainer.callbacks if isinstance(each, Throughput))  # type: ignore[attr-defined]
        if (speed := next(speeds, None)) and speed.tokens_per_second is not None:
            yield "tokens/s", f"{speed.tokens_per_second:,.0f}"
        if (left := self._seconds_left(trainer, pl_module)) is not None:
            yield "left", str(timedelta(seconds=int(left)))

    def _seconds_left(self, trainer: L.Trainer, pl_module: L.LightningModule) -> float | None:
        total: int | None = getattr(pl_module, "total_steps", None)
        done = trainer.global_step - self._first_step
        if self._started is None or not total or done == 0:
            return None
        return (monotonic() - self._started) / done * max(0, total - trainer.global_step)

    def _print(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        shown = ", ".join(f"{name} {value}" for name, value in self._shown(trainer, pl_module))
        total = getattr(pl_module, "total_steps", "?")
        where = self._get_train_description(trainer.current_epoch).strip().lower()
        rank_zero_info(f"{where}, step {trainer.global_step}/{total}: {shown}")

    def _get_train_description(self, current_epoch: int) -> str:
        bounded = self.trainer.max_epochs not in (None, -1)
        total = f"/{self.trainer.max_epochs}" if bounded else ""
        return f"Epoch {current_epoch + 1}{total}".ljust(len(self.validation_description))


def with_buckets(name: str, metrics: Mapping[str, float]) -> str:
    """Format a metric, followed by its value in each entropy bucket.

    >>> with_buckets("val/loss", {"val/loss": 2, "val/loss_low_entropy": 1.5, "val/accuracy": 1})
    '2.000 (low 1.500)'
    """
    own = MetricName.parse(name)
    parsed = {MetricName.parse(each): value for each, value in metrics.items()}
    buckets = [
        f"{each.bucket} {value:.3f}"
        for each, value in parsed.items()
        if each.bucket and replace(each, bucket=None) == own
    ]
    return f"{metrics[name]:.3f}" + (f" ({', '.join(buckets)})" if buckets else "")
