"""Layout of a run folder, and checks of it before a command starts."""

import time
from pathlib import Path
from platform import node

import yaml
from lightning.pytorch.utilities import rank_zero_info

from lit_entrodrop.runs.locking import Lock, describe_owner, lock, owner_of
from lit_entrodrop.runs.metrics_file import FILE_NAME as METRICS

CONFIG = "config.yaml"
CHECKPOINTS = "checkpoints"
# Of the process that trains in the folder.
LOCK = "lock"
# A file server releases the lock of a failed host, whose job may start again elsewhere, after its
# lease; 90 seconds are usual.
LEASE_SECONDS, POLL_SECONDS = 120.0, 10.0
LAST, BEST = "last.ckpt", "best.ckpt"
# Copy of a DeepSpeed checkpoint for another number of devices.
RESHARDED = ".resharded-"


def lock_run(folder: Path) -> Lock:
    """Lock a run folder for the process that trains in it.

    Raises:
        ValueError: If another process trains in it.
        WriteError: If the disk is full or read-only.
    """
    path, deadline = folder / LOCK, time.monotonic() + LEASE_SECONDS
    while (locked := lock(path)) is None:
        owner = owner_of(path)
        if owner is None or owner.host == node() or time.monotonic() > deadline:
            raise ValueError(
                f"trainer.default_root_dir: expected a folder in which nothing trains, got "
                f"{folder}: {describe_owner(path)}"
            )
        rank_zero_info(f"{folder}: waiting for {owner}, which trains there or has just ended")
        time.sleep(POLL_SECONDS)
    return locked


def lock_output(folder: Path, command: str) -> Lock:
    """Lock the output folder of a command that trains several runs.

    Raises:
        ValueError: If another process uses it.
        WriteError: If the disk is full or read-only.
    """
    if (locked := lock(folder / LOCK)) is None:
        raise ValueError(
            f"output: expected a folder that no `{command}` uses, got {folder}: "
            f"{describe_owner(folder / LOCK)}"
        )
    return locked


def holds_run(folder: Path) -> bool:
    """Return whether a folder has a run: a checkpoint, or metrics of a run without checkpoints.

    A run that failed before its first checkpoint can only start again.
    """
    if any(path.exists() for path in (folder / CHECKPOINTS).glob("*.ckpt")):
        return True
    try:
        settings = dict(yaml.safe_load((folder / CONFIG).read_text())["trainer"])
    except (OSError, ValueError, LookupError, TypeError, yaml.YAMLError):
        return False
    return (folder / METRICS).exists() and settings.get("enable_checkpointing") is False


def refuse_used_folder(folder: Path, ckpt_path: str | None) -> None:
    """Raise a ValueError if a folder has a run that ``ckpt_path`` does not resume."""
    own = (folder / CHECKPOINTS).resolve()
    resumes_it = ckpt_path in ("last", "best") or (
        ckpt_path is not None and Path(ckpt_path).resolve().parent == own
    )
    if holds_run(folder) and not resumes_it:
        raise ValueError(
            f"trainer.default_root_dir: expected a new folder, but {folder} has a run: choose "
            "another with --trainer.default_root_dir, or resume it with --ckpt_path last"
        )


def find_checkpoint(name: str, folder: Path, may_be_new: bool = False) -> Path | None:
    """Return the path of a checkpoint; None for a new run.

    Args:
        name: Path, or ``last`` or ``best`` of the run.
        folder: Path to the run folder.
        may_be_new: Whether to start a new run if ``last`` is missing. Default: False.

    Raises:
        ValueError: If there is no such checkpoint.
    """
    links = {"last": folder / CHECKPOINTS / LAST, "best": folder / CHECKPOINTS / BEST}
    path = links.get(name, Path(name))
    if path.exists():
        return path.resolve()
    # A copied folder may have lost its links, and a killed run may not have made any.
    written = (folder / CHECKPOINTS).glob("step=*.ckpt")
    newest = max(written, key=lambda kept: kept.stat().st_mtime_ns, default=None)
    if name == "last" and newest is not None:
        return newest.resolve()
    if name == "last" and may_be_new:
        rank_zero_info(
            f"ckpt_path: {folder} has no checkpoint yet: the run starts from the beginning"
        )
        return None
    raise ValueError(
        f"ckpt_path: expected a checkpoint written by `fit`, found no {path}: name last or best "
        "of trainer.default_root_dir, or a path in the checkpoints folder of a run"
    )
