"""What a run shows while it trains."""

import logging
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import timedelta
from time import monotonic
from typing import Any, TextIO, final

import lightning as L
from lightning.pytorch.callbacks import RichProgressBar
from lightning.pytorch.callbacks.progress.rich_progress import (
    BatchesProcessedColumn,
    CustomBarColumn,
)
from lightning.pytorch.utilities import rank_zero_info
from rich.console import Console
from rich.progress import ProgressColumn, TextColumn

from lit_entrodrop.training.callbacks.throughput import Throughput


@final
@dataclass(eq=False)
class RunProgressBar(RichProgressBar):
    """Show losses, by entropy too, the strength of regularizers, speed, and when the run will end.

    The bar is of the epoch, counted from 1; the time left is of the whole run, validations and
    checkpoints so far included. Where there is no terminal, a line now and then takes its place.

    Args:
        refreshes_per_second: how often the bar is drawn anew, at most.
        seconds_per_line: without a terminal, time between two lines, at least; 0 for none.
    """

    refreshes_per_second: float = 2.0
    seconds_per_line: float = 60.0

    def __post_init__(self) -> None:
        if not (self.refreshes_per_second > 0 and self.seconds_per_line >= 0):
            raise ValueError(
                "progress_bar: expected refreshes_per_second > 0 and seconds_per_line >= 0, got "
                f"{self.refreshes_per_second} and {self.seconds_per_line}"
            )
        super().__init__(refresh_rate=self.refreshes_per_second)  # type: ignore[arg-type]
        self._next = 0.0
        # Neither is known in the validation before the first step.
        self._started: float | None = None
        self._first_step = 0
        self._handlers: list[logging.StreamHandler[TextIO]] = []
        self._draws = has_terminal()

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        """Draw on the first rank's terminal alone."""
        super().setup(trainer, pl_module, stage)
        if not self._draws:
            self.disable()

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Start the clock of the time left."""
        super().on_train_start(trainer, pl_module)
        self._started, self._first_step = monotonic(), trainer.global_step
        self._next = self._started + (0 if self._draws else self.seconds_per_line)

    def on_train_batch_end(
        self,
        trainer: L.Trainer,
        pl_module: L.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
    ) -> None:
        """Draw anew if it is time."""
        if (now := monotonic()) < self._next:
            return
        if self._draws:
            self._next = now + 1 / self.refreshes_per_second
            super().on_train_batch_end(trainer, pl_module, outputs, batch, batch_idx)
        elif self.seconds_per_line:
            self._next = now + self.seconds_per_line
            self._print(trainer, pl_module)

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Draw the epoch as done."""
        self._update(self.train_progress_bar_id, trainer.fit_loop.batch_idx + 1)
        super().on_train_epoch_end(trainer, pl_module)

    def get_metrics(
        self, trainer: L.Trainer, pl_module: L.LightningModule
    ) -> dict[str, int | str | float | dict[str, float]]:
        """Return what stands beside the bar, by name; nothing here is read from a device."""
        return dict(self._shown(trainer, pl_module))

    def configure_columns(self, trainer: L.Trainer) -> list[ProgressColumn]:
        """Return the parts of the bar, without Lightning's times, which are of an epoch."""
        theme = self.theme
        return [
            TextColumn("[progress.description]{task.description}"),
            CustomBarColumn(
                bar_width=20,
                complete_style=theme.progress_bar,
                finished_style=theme.progress_bar_finished,
                pulse_style=theme.progress_bar_pulse,
            ),
            BatchesProcessedColumn(style=theme.batch_progress),
        ]

    def _init_progress(self, trainer: L.Trainer) -> None:
        before = sys.stderr
        super()._init_progress(trainer)
        if sys.stderr is not before:
            # Rich puts what is written above the bar; loggers would write across it.
            self._handlers = [each for each in log_handlers() if each.stream is before]
            for handler in self._handlers:
                handler.setStream(sys.stderr)

    def _stop_progress(self) -> None:
        super()._stop_progress()
        for handler in self._handlers:
            handler.setStream(sys.stderr)
        self._handlers = []

    def _shown(self, trainer: L.Trainer, pl_module: L.LightningModule) -> Iterator[tuple[str, str]]:
        training = getattr(pl_module, "last_training", {})
        evaluation = getattr(pl_module, "last_evaluation", {})
        strengths = [name for name in training if name.endswith("/strength")]
        for name in ["train/loss", *strengths]:
            if name in training:
                yield name, f"{training[name]:.3f}"
        if "val/loss" in evaluation:
            yield "val/loss", with_buckets("val/loss", evaluation)
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
    """Format a metric with its values by entropy.

    >>> with_buckets("val/loss", {"val/loss": 2, "val/loss_low_entropy": 1.5, "val/accuracy": 1})
    '2.000 (low 1.500)'
    """
    start, end = f"{name}_", "_entropy"
    buckets = [
        f"{each.removeprefix(start).removesuffix(end)} {value:.3f}"
        for each, value in metrics.items()
        if each.startswith(start) and each.endswith(end)
    ]
    return f"{metrics[name]:.3f}" + (f" ({', '.join(buckets)})" if buckets else "")


def log_handlers() -> list["logging.StreamHandler[TextIO]"]:
    """Return what writes Lightning's messages, and so ours, to a stream."""
    logger: logging.Logger | None = logging.getLogger("lightning.pytorch")
    found: list[logging.StreamHandler[TextIO]] = []
    while logger:
        found += [each for each in logger.handlers if isinstance(each, logging.StreamHandler)]
        logger = logger.parent if logger.propagate else None
    return found


def has_terminal() -> bool:
    """Tell whether standard output is a terminal, or a notebook, that can draw a bar."""
    console = Console()
    return console.is_interactive or console.is_jupyter
