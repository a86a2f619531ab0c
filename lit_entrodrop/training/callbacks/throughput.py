"""Throughput and memory of a run."""

import csv
import resource
import sys
from dataclasses import dataclass, field
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Any, final

import lightning as L
import torch

from lit_entrodrop.model.building import build_on_meta
from lit_entrodrop.model.flops import peak_flops, training_flops_per_token
from lit_entrodrop.runs.metrics_file import MetricsFile
from lit_entrodrop.runs.writing import naming_path
from lit_entrodrop.runtime.ranks import data_rank
from lit_entrodrop.training.evaluation_module import EvaluationModule
from lit_entrodrop.training.optim import freeze

if TYPE_CHECKING:
    import pandas as pd

FILE_NAME = "throughput.csv"
COLUMNS = ("step", "seconds_per_step", "tokens_per_second", "mfu", "memory_gb")
GB = 10**9


@final
@dataclass(eq=False)
class Throughput(L.Callback):
    """Write speed and memory to ``throughput.csv``, every ``trainer.log_every_n_steps`` steps.

    Tokens are counted over all devices, without padding. Validation, checkpoints and the time
    between epochs are not counted. Counts stay on the device until metrics are logged, so that no
    step waits for it. Loggers get ``throughput/*`` too, except ``metrics.csv``, which is equal for
    equal runs.

    MFU is the share of the devices' peak that the operations of the method take, without
    recomputation, see :func:`~lit_entrodrop.model.flops.training_flops_per_token`. Memory is the
    peak allocated on the first device so far; on a CPU, the peak of the first process.

    Args:
        peak_flops: Peak operations per second of one device in the run's precision; null for the
            known value of the device. Without a value, there is no MFU.
    """

    peak_flops: float | None = None
    tokens_per_second: float | None = field(init=False, default=None)
    seconds_per_step: float | None = field(init=False, default=None)
    _flops_per_token: float | None = field(init=False, default=None, repr=False)

    def __post_init__(self) -> None:
        if self.peak_flops is not None and not self.peak_flops > 0:
            raise ValueError(
                f"throughput: expected peak_flops > 0 or null, got {self.peak_flops}: set the "
                "operations per second of one device"
            )

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        """Set the path of the file."""
        self._path = Path(trainer.strategy.broadcast(trainer.default_root_dir)) / FILE_NAME
        self._clock = Clock(trainer.strategy.root_device)

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Reset the counts."""
        self._tokens = torch.zeros((), dtype=torch.int64, device=pl_module.device)
        # Ranks of a tensor-parallel group have the same tokens.
        self._counts = data_rank(trainer).first
        self._last_step = trainer.global_step
        self._peak = self.peak_flops
        if not isinstance(pl_module, EvaluationModule):
            return
        lm = pl_module.lm
        self._peak = self._peak or peak_flops(pl_module.device, str(trainer.precision), lm.dtype)
        if trainer.is_global_zero and self._peak is not None:
            required = pl_module.regularizers.requirements
            causal_lm = build_on_meta(lm)
            freeze(causal_lm, pl_module.optimization.rules)
            self._flops_per_token = training_flops_per_token(
                causal_lm, pl_module.data.block_size, required
            )

    def on_train_batch_start(
        self, trainer: L.Trainer, pl_module: L.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Resume the clock after a pause."""
        self._clock.resume()

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: Any, outputs: Any, batch: Any, *_: Any
    ) -> None:
        """Count the tokens of a batch."""
        if self._counts:
            self._tokens += (batch["document_ids"] >= 0).sum()
        self._clock.tick()
        every: int = trainer.log_every_n_steps  # type: ignore[attr-defined]
        if every and trainer.global_step % every == 0:
            self._log(trainer)

    def on_validation_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Pause the clock for validation."""
        self._clock.pause()

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Pause the clock between epochs."""
        self._clock.pause()

    def on_save_checkpoint(
        self, trainer: L.Trainer, pl_module: L.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Pause the clock; a callback may save a checkpoint before the batch is counted."""
        self._clock.tick()
        self._clock.pause()

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Write the last steps."""
        self._log(trainer)

    def _log(self, trainer: L.Trainer) -> None:
        steps = trainer.global_step - self._last_step
        if steps == 0 or not self._clock.has_measured:
            return
        tokens = int(trainer.strategy.reduce(self._tokens, reduce_op="sum"))
        # The reduction waited for the device.
        seconds = self._clock.seconds()
        self._tokens.zero_()
        self._last_step = trainer.global_step
        self.seconds_per_step, self.tokens_per_second = seconds / steps, tokens / seconds
        if not trainer.is_global_zero:
            return
        row = {
            "seconds_per_step": self.seconds_per_step,
            "tokens_per_second": self.tokens_per_second,
            "memory_gb": peak_memory(self._tokens.device) / GB,
        }
        if self._flops_per_token is not None and self._peak is not None:
            needed = self.tokens_per_second * self._flops_per_token
            row["mfu"] = needed / (self._peak * trainer.world_size)
        append(self._path, {"step": trainer.global_step, **row})
        for logger in trainer.loggers:
            if not isinstance(logger, MetricsFile):
                named = {f"throughput/{name}": value for name, value in row.items()}
                logger.log_metrics(named, trainer.global_step)


class Clock:
    """Measures the training time of a device, without waiting for it.

    CUDA events measure the time of a GPU; elsewhere the host's time is used.
    """

    def __init__(self, device: torch.device) -> None:
        self._on_cuda = device.type == "cuda"
        self._start = self._end = None
        self._done: list[tuple[Any, Any]] = []

    def resume(self) -> None:
        """Start to measure, unless the clock is running."""
        if self._start is None:
            self._start = self._now()

    def tick(self) -> None:
        """Measure at least up to now."""
        self._end = self._now()

    def pause(self) -> None:
        """Stop at the last tick."""
        if self._start is not None and self._end is not None:
            self._done.append((self._start, self._end))
        self._start = self._end = None

    @property
    def has_measured(self) -> bool:
        """Whether any time was measured."""
        return bool(self._done) or self._end is not None

    def seconds(self) -> float:
        """Return the seconds up to the last tick, and restart from there.

        On CUDA, wait until the device has reached it.
        """
        last = self._end
        self.pause()
        done, self._done, self._start = self._done, [], last
        if not self._on_cuda:
            return float(sum(end - start for start, end in done))
        done[-1][1].synchronize()
        return float(sum(start.elapsed_time(end) for start, end in done)) / 1e3

    def _now(self) -> Any:
        if not self._on_cuda:
            return perf_counter()
        event = torch.cuda.Event(enable_timing=True)
        event.record()
        return event


def peak_memory(device: torch.device) -> int:
    """Return the peak of allocated bytes, of a GPU or else of this process.

    >>> peak_memory(torch.device("cpu")) > 10**6
    True
    """
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    largest = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return largest if sys.platform == "darwin" else 1024 * largest


def append(path: Path, row: dict[str, float]) -> None:
    """Append a line to the file of a run; missing values stay empty."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with naming_path(path), path.open("a", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS)
        if file.tell() == 0:
            writer.writeheader()
        writer.writerow(row)


def read_throughput(folder: str | Path) -> "pd.DataFrame":
    """Read the throughput of a run: one row per logged step; of repeated steps, the last row."""
    import pandas as pd

    path = Path(folder) / FILE_NAME
    if not path.exists():
        raise ValueError(
            f"run: expected {FILE_NAME} in {folder}, found none: is it the folder of a run with "
            "monitors.throughput?"
        )
    return pd.read_csv(path).groupby("step").last()
