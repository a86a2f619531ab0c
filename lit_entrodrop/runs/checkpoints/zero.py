"""Read checkpoints of DeepSpeed ZeRO, without DeepSpeed and without running pickled code."""

import re
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch.serialization import get_unsafe_globals_in_checkpoint, safe_globals

from lit_entrodrop.runs.checkpoints.lazy_weights import LazyWeights
from lit_entrodrop.runs.checkpoints.zero_layout import Files, find_weights, read_weight

# Name of the folder that Lightning chooses.
TAG = "checkpoint"
OPTIMIZER_FILE = re.compile(r"(?:bf16_)?zero_pp_rank_(\d+)_mp_rank_00_optim_states\.pt")
MODEL_FILE = re.compile(r"(?:zero_pp_rank_(\d+)_)?mp_rank_00_model_states\.pt")


class _Settings:
    """Stand-in for DeepSpeed's objects, without their code."""


# Exact names of all types that DeepSpeed writes and PyTorch does not already allow.
KNOWN_TYPES: dict[str, type] = {
    "deepspeed.runtime.fp16.loss_scaler.LossScaler": _Settings,
    "deepspeed.runtime.fp16.loss_scaler.DynamicLossScaler": _Settings,
    "deepspeed.runtime.zero.config.ZeroStageEnum": int,
    "deepspeed.utils.tensor_fragment.fragment_address": _Settings,
}


def is_zero_folder(path: Path) -> bool:
    """Return whether a path looks like a checkpoint that Lightning wrote with DeepSpeed."""
    return (path / TAG).is_dir()


def read_zero_folder(folder: Path) -> dict[str, Any]:
    """Read a checkpoint of ZeRO-1, ZeRO-2 or ZeRO-3, which Lightning's ``DeepSpeedStrategy`` wrote.

    Every file is checked for pickled code, so DeepSpeed, which would run it, may load them later.

    Returns:
        The checkpoint as Lightning saved it, with memory-mapped tensors. ``state_dict`` has the
        weights, fp32 if they were trained, which are read from the files on access.

    Raises:
        ValueError: If a file is missing, damaged or has an unknown type; names the file.
    """
    _check_files(folder)
    try:
        # Tensors such as entropies are read here; weights are read later, on access.
        [first] = _load_ranks(folder, MODEL_FILE, 1, device="cpu").values()
        ranks = first["dp_world_size"]
        optimizers = _load_ranks(folder, OPTIMIZER_FILE, ranks)
        stage = next(iter(optimizers.values()))["optimizer_state_dict"]["zero_stage"]
        models = _load_ranks(folder, MODEL_FILE, ranks if stage == 3 else 1)
        places = find_weights(models, optimizers, stage)
    except (KeyError, IndexError, TypeError, AttributeError, RuntimeError) as error:
        raise ValueError(
            f"ckpt_path: expected the files of one checkpoint in {folder / TAG}, got files that do "
            f"not fit together ({error!r}): copy the whole folder again"
        ) from error
    weights = {name: (place.shape, partial(read_weight, place)) for name, place in places.items()}
    return {**first, "state_dict": LazyWeights(weights)}


def read_rank_files(folder: Path) -> dict[str, Any]:
    """Return the content of the files of all ranks by file name, with memory-mapped tensors."""
    files = sorted((folder / TAG).glob("*.pt"))
    return {file.name: _load(file, device="cpu") for file in files}


def _check_files(folder: Path) -> None:
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
            "has no .pt file"
        )
    for file in files:
        _load(file)


def _load(file: Path, device: str = "meta") -> dict[str, Any]:
    stand_ins: list[Any] = [(kind, name) for name, kind in KNOWN_TYPES.items()]
    refused = f"ckpt_path: expected a checkpoint written by `fit`, got {file}, which"
    with safe_globals(stand_ins):
        try:
            unknown = get_unsafe_globals_in_checkpoint(str(file))
            options: dict[str, Any] = {"map_location": device, "mmap": device != "meta"}
            content = None if unknown else torch.load(file, weights_only=True, **options)
        except Exception as error:
            # The message of torch.load suggests to allow pickled code.
            raise ValueError(
                f"{refused} is damaged or not a checkpoint file ({type(error).__name__}): copy it "
                "again, or use another checkpoint"
            ) from error
    if unknown:
        raise ValueError(
            f"{refused} contains {min(unknown)}, a type that DeepSpeed does not write: do not open "
            "it unless you trust its source"
        )
    if not isinstance(content, dict):
        raise ValueError(f"{refused} has no checkpoint")
    return content


def _load_ranks(folder: Path, pattern: re.Pattern[str], ranks: int, device: str = "meta") -> Files:
    """Load the files of the first ranks, as files of a run on more ranks may remain."""
    found: dict[int, Path] = {}
    for file in sorted((folder / TAG).iterdir()):
        if match := pattern.fullmatch(file.name):
            rank = int(match[1] or 0)
            if rank in found:
                raise ValueError(
                    f"ckpt_path: expected one checkpoint in {folder / TAG}, got two, with "
                    f"{file.name} and {found[rank].name}: remove the older files"
                )
            found[rank] = file
    if missing := sorted(set(range(ranks)) - found.keys()):
        part = "optim" if pattern is OPTIMIZER_FILE else "model"
        raise ValueError(
            f"ckpt_path: expected the files of {ranks} ranks in {folder / TAG}, found none of rank "
            f"{missing[0]} (zero_pp_rank_{missing[0]}_mp_rank_00_{part}_states.pt): copy the whole "
            "folder"
        )
    return {found[rank]: _load(found[rank], device) for rank in range(ranks)}
