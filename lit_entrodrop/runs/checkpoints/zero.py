"""Read the checkpoints of DeepSpeed ZeRO, without DeepSpeed and without code that they may hold."""

import re
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch.serialization import get_unsafe_globals_in_checkpoint, safe_globals

from lit_entrodrop.runs.checkpoints.lazy_weights import LazyWeights
from lit_entrodrop.runs.checkpoints.zero_layout import Files, find_weights, read_weight

# The name that Lightning gives.
TAG = "checkpoint"
OPTIMIZER_FILE = re.compile(r"(?:bf16_)?zero_pp_rank_(\d+)_mp_rank_00_optim_states\.pt")
MODEL_FILE = re.compile(r"(?:zero_pp_rank_(\d+)_)?mp_rank_00_model_states\.pt")


class _Settings:
    """Stands for what DeepSpeed keeps beside numbers, and has none of its code."""


# Whole names alone: all that DeepSpeed writes beside what PyTorch itself deems safe.
KNOWN_TYPES: dict[str, type] = {
    "deepspeed.runtime.fp16.loss_scaler.LossScaler": _Settings,
    "deepspeed.runtime.fp16.loss_scaler.DynamicLossScaler": _Settings,
    "deepspeed.runtime.zero.config.ZeroStageEnum": int,
    "deepspeed.utils.tensor_fragment.fragment_address": _Settings,
}


def is_zero_folder(path: Path) -> bool:
    """Tell whether a path looks like a checkpoint of DeepSpeed under Lightning."""
    return (path / TAG).is_dir()


def check_zero_folder(folder: Path) -> None:
    """Refuse a checkpoint whose files hold more than numbers and settings.

    DeepSpeed itself unpickles them, so call this, or :func:`read_zero_folder`, before it loads a
    checkpoint.

    Args:
        folder: what Lightning's ``DeepSpeedStrategy`` wrote.

    Raises:
        ValueError: naming the file that is damaged, or asks for an unknown type.
    """
    latest = folder / "latest"
    if latest.exists() and (tag := latest.read_text().strip()) != TAG:
        raise ValueError(
            f"ckpt_path: expected a checkpoint written by `fit`, got {folder}, whose file latest "
            f"points to {tag!r} instead of {TAG!r}"
        )
    files = sorted((folder / TAG).rglob("*.pt"))
    if not files:
        raise ValueError(
            f"ckpt_path: expected a checkpoint written by `fit`, got {folder}, whose folder {TAG} "
            "holds no .pt file"
        )
    for file in files:
        _load(file)


def read_zero_folder(folder: Path) -> dict[str, Any]:
    """Read a checkpoint of ZeRO-1, ZeRO-2 or ZeRO-3.

    Args:
        folder: what Lightning's ``DeepSpeedStrategy`` wrote.

    Returns:
        What Lightning saved, tensors mapped from the file; and under ``state_dict`` the weights,
        fp32 where they were trained, which stay in the files until they are asked for.

    Raises:
        ValueError: naming the file that is missing, damaged, or asks for an unknown type.
    """
    # DeepSpeed may come after this and unpickle files that are not of a rank.
    check_zero_folder(folder)
    try:
        # Entropies are read; weights come from wherever they are, and are not touched here.
        [first] = _load_ranks(folder, MODEL_FILE, 1, device="cpu").values()
        ranks = first["dp_world_size"]
        optimizers = _load_ranks(folder, OPTIMIZER_FILE, ranks)
        stage = next(iter(optimizers.values()))["optimizer_state_dict"]["zero_stage"]
        models = _load_ranks(folder, MODEL_FILE, ranks if stage == 3 else 1)
        places = find_weights(models, optimizers, stage)
    except (KeyError, IndexError, TypeError, AttributeError, RuntimeError) as error:
        raise ValueError(
            f"ckpt_path: expected the files of one checkpoint in {folder / TAG}, got some that do "
            f"not fit together ({error!r}): copy the whole folder again"
        ) from error
    readers = {name: partial(read_weight, place) for name, place in places.items()}
    shapes = {name: place.shape for name, place in places.items()}
    return {**first, "state_dict": LazyWeights(readers, shapes)}


def read_rank_files(folder: Path) -> dict[str, Any]:
    """Read all that the ranks of ZeRO have written, as they hold it.

    Args:
        folder: what Lightning's ``DeepSpeedStrategy`` wrote.

    Returns:
        The content of each file, by its name; tensors are mapped from the files.

    Raises:
        ValueError: naming the file that is damaged, or asks for an unknown type.
    """
    files = sorted((folder / TAG).glob("*.pt"))
    return {file.name: _load(file, device="cpu") for file in files}


def _load(file: Path, device: str = "meta") -> dict[str, Any]:
    stand_ins: list[Any] = [(kind, name) for name, kind in KNOWN_TYPES.items()]
    refused = f"ckpt_path: expected a checkpoint written by `fit`, got {file}, which"
    with safe_globals(stand_ins):
        try:
            unknown = get_unsafe_globals_in_checkpoint(str(file))
            options: dict[str, Any] = {"map_location": device, "mmap": device != "meta"}
            content = None if unknown else torch.load(file, weights_only=True, **options)
        except Exception as error:
            # The message of torch.load would advise to run the code that a pickle may hold.
            raise ValueError(
                f"{refused} is damaged or no such file ({type(error).__name__}): copy it again, or "
                "take another checkpoint"
            ) from error
    if unknown:
        raise ValueError(
            f"{refused} asks for {min(unknown)}, a type that DeepSpeed does not write: do not open "
            "it unless you know who made it"
        )
    if not isinstance(content, dict):
        raise ValueError(f"{refused} holds no checkpoint")
    return content


def _load_ranks(folder: Path, pattern: re.Pattern[str], ranks: int, device: str = "meta") -> Files:
    """Load the files of the first ranks; a run on more ranks may have left others there."""
    found: dict[int, Path] = {}
    for file in sorted((folder / TAG).iterdir()):
        if match := pattern.fullmatch(file.name):
            rank = int(match[1] or 0)
            if rank in found:
                raise ValueError(
                    f"ckpt_path: expected one checkpoint in {folder / TAG}, got two, of which "
                    f"{file.name} and {found[rank].name} are: remove what is older"
                )
            found[rank] = file
    if missing := sorted(set(range(ranks)) - found.keys()):
        raise ValueError(
            f"ckpt_path: expected the files of {ranks} ranks in {folder / TAG}, found none of rank "
            f"{missing[0]} ({_example(pattern, missing[0])}): copy the whole folder"
        )
    return {found[rank]: _load(found[rank], device) for rank in range(ranks)}


def _example(pattern: re.Pattern[str], rank: int) -> str:
    part = "optim" if pattern is OPTIMIZER_FILE else "model"
    return f"zero_pp_rank_{rank}_mp_rank_00_{part}_states.pt"
