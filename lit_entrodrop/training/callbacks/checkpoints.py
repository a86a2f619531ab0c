"""Atomic checkpoints, which a killed run leaves complete or not at all."""

import os
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal, NoReturn

import lightning as L
from lightning.pytorch.callbacks import Checkpoint
from lightning.pytorch.trainer.states import TrainerFn
from torch.distributed.checkpoint.api import CheckpointException

from lit_entrodrop.runs.checkpoints.table_digest import write_digest
from lit_entrodrop.runs.criterion import Criterion
from lit_entrodrop.runs.layout import BEST, CHECKPOINTS, LAST, RESHARDED
from lit_entrodrop.runs.metric_name import VALIDATION_LOSS
from lit_entrodrop.runs.writing import UNFINISHED
from lit_entrodrop.runtime.lightning_compat import is_accumulating, validates_next
from lit_entrodrop.runtime.setting_checks import check_at_least
from lit_entrodrop.runtime.setting_types import check_types
from lit_entrodrop.training.optim import evaluation_weights


class Checkpoints(Checkpoint):
    """Keep the last checkpoints of a run, and the one of the best evaluation.

    Each is written under another name, flushed to the disk and then renamed to ``step=N.ckpt``.
    ``last.ckpt`` and ``best.ckpt`` are links to two of them. A checkpoint is written at the end of
    each epoch, after each better evaluation within an epoch, and after a signal to stop.

    Args:
        every_n_train_steps: Number of optimizer steps between further checkpoints; null for none.
        keep_last: Number of last checkpoints to keep, in addition to the best.
        monitor: Metric that selects the best checkpoint, such as `exam/loss`; null for `val/loss`
            and, with `model.average`, `val_average/loss`, whichever is better.
        mode: Whether the lowest or the highest value of the metric is the best.
    """

    def __init__(
        self,
        every_n_train_steps: int | None = None,
        keep_last: int = 2,
        monitor: str | None = None,
        mode: Literal["min", "max"] = "min",
    ) -> None:
        check_types("checkpoints", Checkpoints.__init__, locals())
        counts = {"keep_last": keep_last, "every_n_train_steps": every_n_train_steps}
        check_at_least(1, **{f"checkpoints.{name}": count for name, count in counts.items()})
        self.every_n_train_steps = every_n_train_steps
        self.keep_last = keep_last
        self.monitor, self.mode = monitor, mode
        self.criterion = Criterion(monitor or VALIDATION_LOSS, mode)
        self.best_score = float("inf")
        self.best_model_path = self.last_model_path = ""
        self._saved_step = 0
        self._is_due = self._is_last_batch = False

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        """Set the folder, and remove incomplete checkpoints of a killed run."""
        self.folder = Path(trainer.strategy.broadcast(trainer.default_root_dir)) / CHECKPOINTS
        settings = getattr(getattr(pl_module, "averaging", None), "settings", None)
        averaged = self.monitor is None and settings is not None
        self.criterion = replace(self.criterion, averaged=averaged)
        if stage == TrainerFn.FITTING and trainer.is_global_zero:
            for pattern in (f"*{UNFINISHED}", f"{RESHARDED}*"):
                for unfinished in self.folder.glob(pattern):
                    _remove(unfinished)

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Count the step at which the run starts as saved."""
        self._saved_step = trainer.global_step

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: Any, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Save a checkpoint if one is due.

        If validation comes next, the checkpoint is saved after it: a run resumed from an earlier
        one would skip the validation.
        """
        step, every = trainer.global_step, self.every_n_train_steps
        self._is_last_batch = ends_epoch(trainer, batch_idx)
        self._is_due = step != self._saved_step and (
            trainer.received_sigterm or (every is not None and step % every == 0)
        )
        if self._is_due and not ends_or_validates(trainer, batch_idx):
            self.save(trainer)

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Save a checkpoint within an epoch if one is due, or the evaluation is the best so far."""
        fitting = trainer.state.fn == TrainerFn.FITTING and not trainer.sanity_checking
        # Accumulated gradients would be lost.
        if not fitting or self._is_last_batch or is_accumulating(trainer):
            return
        if self._is_due or trainer.received_sigterm or self._score(trainer) < self.best_score:
            self.save(trainer)

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Save a checkpoint of the finished epoch."""
        self.save(trainer)

    def save(self, trainer: L.Trainer) -> None:
        """Save a checkpoint of this step, and point the links to it.

        Raises:
            OSError: If it cannot be written; earlier checkpoints are kept.
        """
        is_written = self._saved_step == trainer.global_step and bool(self.last_model_path)
        path = Path(self.last_model_path) if is_written else self._new_path(trainer)
        is_best = (score := self._score(trainer)) < self.best_score
        if is_best:
            self.best_score, self.best_model_path = score, str(path)
        if not is_written:
            self._write(trainer, path)
            self.last_model_path, self._saved_step = str(path), trainer.global_step
        if trainer.is_global_zero:
            _point(self.folder / LAST, path)
            if is_best:
                _point(self.folder / BEST, path)
            self._remove_old()
        trainer.strategy.barrier()

    def state_dict(self) -> dict[str, Any]:
        """Return the best checkpoint, which may be this one."""
        best = Path(self.best_model_path).name
        return {"best_score": self.best_score, "best": best, "monitor": self.monitor}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore the best checkpoint, if it is in the run folder and of the same metric."""
        best, same = self.folder / state_dict["best"], state_dict.get("monitor") == self.monitor
        if same and state_dict["best"] and best.exists():
            self.best_score, self.best_model_path = state_dict["best_score"], str(best)

    def _score(self, trainer: L.Trainer) -> float:
        """Return the monitored value such that lower is better; infinity without one."""
        values = {name: float(value) for name, value in trainer.callback_metrics.items()}
        metric = self.criterion.best_metric(values)
        return float("inf") if metric is None else self.criterion.score(values[metric])

    def _new_path(self, trainer: L.Trainer) -> Path:
        path = self.folder / f"step={trainer.global_step}.ckpt"
        version = 2
        # A run resumed from an earlier step; `last.ckpt` may point to the existing file.
        while path.exists():
            path = self.folder / f"step={trainer.global_step}-v{version}.ckpt"
            version += 1
        return Path(trainer.strategy.broadcast(str(path)))

    def _write(self, trainer: L.Trainer, path: Path) -> None:
        unfinished = path.with_name(path.name + UNFINISHED)
        self.folder.mkdir(parents=True, exist_ok=True)
        try:
            with evaluation_weights(trainer):
                trainer.save_checkpoint(unfinished, weights_only=False)
            if trainer.is_global_zero:
                write_digest(unfinished)
                _flush(unfinished)
                unfinished.rename(path)
                _flush_folder(self.folder)
        except (OSError, RuntimeError, CheckpointException) as error:
            if not _is_of_the_disk(error):
                raise
            self._give_up(unfinished, error)

    def _give_up(self, unfinished: Path, error: BaseException) -> NoReturn:
        free = shutil.disk_usage(self.folder).free / 1e9
        size = _size(unfinished) / 1e9
        _remove(unfinished)
        kept = self.last_model_path or "none yet"
        raise OSError(
            f"checkpoint: could not be written to {self.folder} ({error}): {size:.3f} GB were "
            f"written, {free:.3f} GB are free: free disk space and resume; last checkpoint: {kept}"
        ) from error

    def _remove_old(self) -> None:
        kept = {Path(self.best_model_path).name, Path(self.last_model_path).name}
        written = sorted(self.folder.glob("step=*.ckpt"), key=lambda path: path.stat().st_mtime_ns)
        for path in written[: -self.keep_last]:
            if path.name not in kept:
                # Renamed first, because a partly removed checkpoint must not look complete.
                _remove(path.rename(path.with_name(path.name + UNFINISHED)))


def ends_epoch(trainer: L.Trainer, batch_idx: int) -> bool:
    """Return whether this is the last training batch of the epoch."""
    is_last = trainer.is_last_batch or batch_idx + 1 >= trainer.num_training_batches
    return is_last or trainer.global_step == trainer.max_steps


def ends_or_validates(trainer: L.Trainer, batch_idx: int) -> bool:
    """Return whether validation, or the end of the epoch, comes after this batch."""
    return validates_next(trainer) or ends_epoch(trainer, batch_idx)


def _is_of_the_disk(error: BaseException) -> bool:
    # Collectives raise RuntimeError too, when another rank has died.
    of_torch = any(word in str(error) for word in ("PytorchStreamWriter", "inline_container"))
    return isinstance(error, OSError | CheckpointException) or of_torch


def _point(link: Path, target: Path) -> None:
    new = link.with_name(link.name + UNFINISHED)
    new.unlink(missing_ok=True)
    new.symlink_to(target.name)
    copied = link.with_name(f"copied-{link.name}{UNFINISHED}")
    if link.is_dir() and not link.is_symlink():
        # A copied run has a folder in place of the link.
        link.rename(copied)
    new.replace(link)
    _remove(copied)


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        # After a failed write, all ranks remove it.
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def _files(path: Path) -> list[Path]:
    return [file for file in path.rglob("*") if file.is_file()] if path.is_dir() else [path]


def _size(path: Path) -> int:
    return sum(file.stat().st_size for file in _files(path) if file.exists())


def _flush(path: Path) -> None:
    for file in _files(path):
        with file.open("rb") as opened:
            os.fsync(opened.fileno())
        _flush_folder(file.parent)


def _flush_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    os.fsync(descriptor)
    os.close(descriptor)
