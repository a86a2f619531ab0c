"""Config and kill schedule of a short run over two epochs."""

from dataclasses import dataclass
from typing import Any

SAVE_EVERY = 2  # steps
SHORT_VALIDATION = 2  # batches


@dataclass(frozen=True)
class KillSchedule:
    """Steps of two short epochs, and the steps after which the run is killed.

    Raises:
        ValueError: If they do not make two epochs that end with a checkpoint.

    >>> schedule = KillSchedule(8)
    >>> schedule.per_epoch, schedule.kills
    (4, (3, 5))
    """

    steps: int = 8

    def __post_init__(self) -> None:
        if self.steps < 8 or self.steps % 4:
            raise ValueError(
                f"steps: expected a multiple of 4 of at least 8, got {self.steps}: set it to 8"
            )

    @property
    def per_epoch(self) -> int:
        """Number of steps in an epoch."""
        return self.steps // 2

    @property
    def kills(self) -> tuple[int, int]:
        """Steps after which the run is killed, one in each epoch.

        Each is one step after a checkpoint; the resumed run repeats that step.
        """
        return self.per_epoch - 1, self.per_epoch + 1


def short_config(config: dict[str, Any], schedule: KillSchedule) -> dict[str, Any]:
    """Return a config of `fit`, with all defaults, changed for a short run of two epochs."""
    trainer = config["trainer"]
    callbacks = trainer["callbacks"] or []
    callbacks = callbacks if isinstance(callbacks, list) else [callbacks]
    own = {
        "max_epochs": 2,
        # Lightning resumes differently if it is set, so it is set if the user sets it.
        "max_steps": -1 if trainer["max_steps"] == -1 else schedule.steps,
        "min_steps": None,
        "min_epochs": None,
        "max_time": None,
        "fast_dev_run": False,
        "limit_train_batches": schedule.per_epoch * trainer["accumulate_grad_batches"],
        "limit_val_batches": 0 if trainer["limit_val_batches"] == 0 else SHORT_VALIDATION,
        "val_check_interval": 1.0,
        "check_val_every_n_epoch": 1,
        "log_every_n_steps": 1,
        "logger": True,
        "profiler": None,
        "enable_checkpointing": True,
        "enable_progress_bar": False,
        "callbacks": [*map(_without_dirpath, callbacks)],
    }
    return {
        **config,
        "trainer": {**trainer, **own},
        "checkpoints": {**config["checkpoints"], "every_n_train_steps": SAVE_EVERY},
        "ckpt_path": None,
    }


def _without_dirpath(callback: dict[str, Any]) -> dict[str, Any]:
    settings = callback.get("init_args") or {}
    if not settings.get("dirpath"):
        return callback
    return {**callback, "init_args": {**settings, "dirpath": None}}
