"""Progress of a run, read from the files in its folder while it trains."""

from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from lit_entrodrop.commands.compare.measuring.measures import evaluated_rows
from lit_entrodrop.runs.criterion import Criterion
from lit_entrodrop.runs.evaluations import read_run_info
from lit_entrodrop.runs.metrics_file import read_metrics

LOSSES = Criterion(averaged=True).metrics


@dataclass(frozen=True)
class RunProgress:
    """Position and losses of a run, None if unknown."""

    step: int  # optimizer steps done
    total_steps: int | None = None
    epoch: int | None = None  # current, from 1
    train_loss: float | None = None  # last, in nats per token
    losses: tuple[float, ...] = ()  # on the validation split since training began
    best_epoch: float | None = None  # passes over the data at the lowest of them

    def __str__(self) -> str:
        total = "" if self.total_steps is None else f"/{self.total_steps}"
        parts = [] if self.epoch is None else [f"epoch {self.epoch}"]
        parts += [f"step {self.step}{total}"]
        if self.train_loss is not None and self.step != self.total_steps:
            parts += [f"training loss {self.train_loss:.3f}"]
        if self.losses:
            parts += [f"best validation loss {min(self.losses):.4f} (epoch {self.best_epoch:.3g})"]
        return ", ".join(parts)


def read_progress(folder: Path) -> RunProgress | None:
    """Read the progress of a run, None before its first metrics are written."""
    try:
        metrics = read_metrics(folder)
    except (ValueError, OSError):
        return None
    if metrics.empty:
        return None
    losses, best_epoch = pd.Series(dtype=float), None
    with suppress(ValueError):
        evaluated = evaluated_rows(metrics, folder)
        columns = [name for name in LOSSES if name in evaluated]
        losses = evaluated[columns].min(axis="columns").dropna()
        best_epoch = evaluated.loc[losses.idxmin(), "passes"]
    epoch = _last(metrics, "epoch")
    return RunProgress(
        int(metrics.index[-1]),
        _total_steps(folder),
        None if epoch is None else int(epoch) + 1,
        _last(metrics, "train/loss"),
        tuple(losses),
        best_epoch,
    )


def _total_steps(folder: Path) -> int | None:
    try:
        return int(read_run_info(folder)["total_steps"])
    except (ValueError, LookupError, TypeError):
        return None


def _last(metrics: pd.DataFrame, name: str) -> float | None:
    known = metrics[name].dropna() if name in metrics else metrics.index[:0]
    return float(known.iloc[-1]) if len(known) else None
