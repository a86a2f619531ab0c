"""How fast a run trains, and how much memory it takes."""

import csv
import resource
import sys
from dataclasses import dataclass, field
from pathlib import Path
from time import perf_counter
from typing import Any, final

import lightning as L
import pandas as pd
import torch

from lit_entrodrop.model.building import build_on_meta
from lit_entrodrop.model.flops import peak_flops, training_flops_per_token
from lit_entrodrop.runs.metrics_file import MetricsFile
from lit_entrodrop.runtime.ranks import data_rank

FILE_NAME = "throughput.csv"
COLUMNS = ("step", "seconds_per_step", "tokens_per_second", "mfu", "memory_gb")
GB = 10**9


@final
@dataclass(eq=False)
class Throughput(L.Callback):
    """Write speed and memory to ``throughput.csv``, every ``trainer.log_every_n_steps`` steps.

    Tokens are counted over all devices, padding left out. Validation, checkpoints and what else
    lies between epochs take no time here. Counts stay on the device until metrics are logged, so
    no step waits for it. Loggers other than ``metrics.csv``, which two equal runs write alike, get
    ``throughput/*`` too.

    MFU is the share of what the devices could do at most: 6 operations for each token and weight,
    see :func:`~lit_entrodrop.model.flops.training_flops_per_token`, over the peak. Memory is the
    most that was allocated so far on the first device, or by its process where that is a CPU.

    Args:
        peak_flops: operations per second that one device can do at most in the run's precision;
            null means what is known of it. Without one, there is no MFU.
    """

    peak_flops: float | None = None
    tokens_per_second: float | None = field(init=False, default=None)
    seconds_per_step: float | None = field(init=False, default=None)
    _flops_per_token: int | None = field(init=False, default=None, repr=False)

    def __post_init__(self) -> None:
        if self.peak_flops is not None and not self.peak_flops > 0:
            raise ValueError(
                f"throughput: expected peak_flops > 0 or null, got {self.peak_flops}: name the "
                "operations per second of one device"
            )

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        """Find the run's folder."""
        self._path = Path(trainer.strategy.broadcast(trainer.default_root_dir)) / FILE_NAME
        self._clock = Clock(trainer.strategy.root_device)

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Start to count."""
        self._tokens = torch.zeros((), dtype=torch.int64, device=pl_module.device)
        # Ranks of one tensor-parallel group have the same tokens.
        self._counts = data_rank(trainer).first
        self._last_step = trainer.global_step
        self._peak = self.peak_flops or peak_flops(pl_module.device, str(trainer.precision))
        lm = getattr(pl_module, "lm", None)
        if trainer.is_global_zero and self._peak is not None and lm is not None:
            self._flops_per_token = training_flops_per_token(build_on_meta(lm))

    def on_train_batch_start(
        self, trainer: L.Trainer, pl_module: L.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Go on measuring time after a pause."""
        self._clock.go_on()

    def on_train_batch_end(
        self,
        trainer: L.Trainer,
        pl_module: L.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
    ) -> None:
        """Count the tokens of a batch."""
        if self._counts:
            self._tokens += (batch["document_ids"] >= 0).sum()
        self._clock.tick()
        every: int = trainer.log_every_n_steps  # type: ignore[attr-defined]
        if every and trainer.global_step % every == 0:
            self._log(trainer)

    def on_validation_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Leave validation out."""
        self._clock.pause()

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Leave what lies between epochs out."""
        self._clock.pause()

    def on_save_checkpoint(
        self, trainer: L.Trainer, pl_module: L.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Leave checkpoints out; a callback may write one before the batch is counted."""
        self._clock.tick()
        self._clock.pause()

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Tell of the last steps."""
        self._log(trainer)

    def _log(self, trainer: L.Trainer) -> None:
        steps = trainer.global_step - self._last_step
        if steps == 0 or not self._clock.has_measured:
            return
        tokens = int(trainer.strategy.reduce(self._tokens, reduce_op="sum"))
        # Only now the device has done it all.
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
    """Measures time in which a device trains, without waiting for it.

    Args:
        device: CUDA has events of its own; elsewhere it is the time of the host.
    """

    def __init__(self, device: torch.device) -> None:
        self._on_cuda = device.type == "cuda"
        self._start = self._end = None
        self._done: list[tuple[Any, Any]] = []

    def go_on(self) -> None:
        """Start to measure, unless it does already."""
        if self._start is None:
            self._start = self._now()

    def tick(self) -> None:
        """Measure up to here, at least."""
        self._end = self._now()

    def pause(self) -> None:
        """Measure no further than the last tick."""
        if self._start is not None and self._end is not None:
            self._done.append((self._start, self._end))
        self._start = self._end = None

    @property
    def has_measured(self) -> bool:
        """Whether there is anything to tell."""
        return bool(self._done) or self._end is not None

    def seconds(self) -> float:
        """Return the time up to the last tick, and count anew from there.

        On CUDA, waits until the device has come there.
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
    """Return the most bytes that were ever allocated: on a GPU, or by this process.

    >>> peak_memory(torch.device("cpu")) > 10**6
    True
    """
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    largest = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return largest if sys.platform == "darwin" else 1024 * largest


def append(path: Path, row: dict[str, float]) -> None:
    """Add a line to the file of a run; what a value is missing for stays empty."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS)
        if file.tell() == 0:
            writer.writeheader()
        writer.writerow(row)


def read_throughput(folder: str | Path) -> pd.DataFrame:
    """Read how fast a run trained.

    Args:
        folder: the run's folder.

    Returns:
        One row for each step that told it; where a resumed run repeated steps, of the last time.

    Raises:
        ValueError: if the folder holds no such file.
    """
    path = Path(folder) / FILE_NAME
    if not path.exists():
        raise ValueError(
            f"run: expected {FILE_NAME} in {folder}, found none: is it the folder of a run with "
            "monitors.throughput?"
        )
    return pd.read_csv(path).groupby("step").last()
