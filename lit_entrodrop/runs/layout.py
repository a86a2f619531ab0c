"""What a run's folder must hold, or must not, before a command begins."""

from pathlib import Path

from lightning.pytorch.utilities import rank_zero_info

from lit_entrodrop.runs.metrics_file import FILE_NAME as METRICS

CHECKPOINTS = "checkpoints"
LAST, BEST = "last.ckpt", "best.ckpt"
UNFINISHED = ".part"
# Written by DeepSpeed to resume on another number of devices.
RESHARDED = ".resharded-"


def refuse_used_folder(folder: Path, ckpt_path: str | None) -> None:
    """Refuse to write a new run over an old one.

    Raises:
        ValueError: if the folder holds a run and none is being resumed.
    """
    # A config alone was left by a run that ended before its first step.
    holds_a_run = any((folder / name).exists() for name in (METRICS, CHECKPOINTS))
    own = (folder / CHECKPOINTS).resolve()
    resumes_it = ckpt_path in ("last", "best") or (
        ckpt_path is not None and Path(ckpt_path).resolve().parent == own
    )
    if holds_a_run and not resumes_it:
        raise ValueError(
            f"trainer.default_root_dir: expected a new folder, but {folder} holds a run: name "
            "another with --trainer.default_root_dir, or resume it with --ckpt_path last"
        )


def find_checkpoint(name: str, folder: Path, may_be_new: bool = False) -> Path | None:
    """Find the checkpoint that a command names.

    Args:
        name: a path, or ``last`` or ``best`` of the run.
        folder: the run's.
        may_be_new: whether ``last`` of a run without checkpoints is none, with which it starts.

    Raises:
        ValueError: if there is none.
    """
    links = {"last": folder / CHECKPOINTS / LAST, "best": folder / CHECKPOINTS / BEST}
    path = links.get(name, Path(name))
    if path.exists():
        return path.resolve()
    # A copy may have lost its links, and a run that was killed may not have come to make one.
    written = (folder / CHECKPOINTS).glob("step=*.ckpt")
    newest = max(written, key=lambda kept: kept.stat().st_mtime_ns, default=None)
    if name == "last" and newest is not None:
        return newest.resolve()
    if name == "last" and may_be_new:
        rank_zero_info(f"ckpt_path: {folder} holds no checkpoint yet: the run starts anew")
        return None
    raise ValueError(
        f"ckpt_path: expected a checkpoint written by `fit`, found no {path}: name last or best "
        "of trainer.default_root_dir, or a path in the checkpoints folder of a run"
    )
