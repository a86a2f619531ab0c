"""Read the checkpoints of DeepSpeed ZeRO, without DeepSpeed and without code that they may hold.

Each rank has flattened its share of the fp32 weights into a few vectors. ZeRO-1 and ZeRO-2 cut the
vector of all weights into one piece a rank; ZeRO-3 cuts every weight. DeepSpeed's own
``zero_to_fp32`` describes the layout, but unpickles whatever stands there, and holds ZeRO-2 twice.
"""

import math
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.serialization import get_unsafe_globals_in_checkpoint, safe_globals

from lit_entrodrop.lazy_weights import LazyWeights

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

    DeepSpeed itself unpickles them, so call this before it loads a checkpoint.

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
        What Lightning saved, tensors without their content; and under ``state_dict`` the weights,
        fp32 where they were trained, which stay in the files until they are asked for.

    Raises:
        ValueError: naming the file that is missing, damaged, or asks for an unknown type.
    """
    models = _load_ranks(folder, MODEL_FILE)
    optimizers = _load_ranks(folder, OPTIMIZER_FILE)
    first = next(iter(models.values()))
    try:
        places = _find_weights(folder, models, optimizers)
    except (KeyError, IndexError, TypeError, AttributeError, RuntimeError) as error:
        raise ValueError(
            f"ckpt_path: expected the files of one checkpoint in {folder / TAG}, got some that do "
            f"not fit together ({error!r}): copy the whole folder again"
        ) from error
    readers = {name: partial(_read, place) for name, place in places.items()}
    return {**first, "state_dict": LazyWeights(readers)}


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


class _Span(NamedTuple):
    """A piece of a file: where a one-dimensional tensor, whose content is not read, lies."""

    file: Path
    tensor: Tensor

    @property
    def offset(self) -> int:
        start = self.tensor.untyped_storage()._checkpoint_offset
        assert start is not None, "torch.load sets it for the device meta"
        return start + self.tensor.storage_offset() * self.tensor.itemsize


class _Place(NamedTuple):
    """Where a weight lies: the pieces that follow one another, and its shape."""

    shape: torch.Size
    spans: list[_Span]


Named = Iterator[tuple[str, _Place]]
Files = dict[Path, dict[str, Any]]


def _find_weights(folder: Path, models: Files, optimizers: Files) -> dict[str, _Place]:
    first = next(iter(models.values()))
    stage = next(iter(optimizers.values()))["optimizer_state_dict"]["zero_stage"]
    ranks = first["dp_world_size"]
    _require_ranks(folder, optimizers, OPTIMIZER_FILE, ranks)
    _require_ranks(folder, models, MODEL_FILE, ranks if stage == 3 else 1)
    if stage == 3:
        places = dict(_untrained(models, first["buffer_names"])) | dict(_frozen(models))
        places |= _whole_weights(first["param_shapes"], optimizers)
    else:
        places = dict(_untrained(models, first["module"]))
        places |= _whole_vectors(first["param_shapes"], optimizers)
    shared = first["shared_params"].items()
    return places | {name: places[source] for name, source in shared if source in places}


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


def _load_ranks(folder: Path, pattern: re.Pattern[str]) -> Files:
    found = {
        int(match[1] or 0): file
        for file in (folder / TAG).iterdir()
        if (match := pattern.fullmatch(file.name))
    }
    if not found:
        raise ValueError(
            f"ckpt_path: expected a checkpoint of DeepSpeed ZeRO, got {folder / TAG}, which holds "
            f"no file {_example(pattern, 0)}"
        )
    return {found[rank]: _load(found[rank]) for rank in sorted(found)}


def _require_ranks(folder: Path, files: Files, pattern: re.Pattern[str], ranks: int) -> None:
    found = {int(match[1] or 0) for file in files if (match := pattern.fullmatch(file.name))}
    if missing := sorted(set(range(ranks)) - found):
        raise ValueError(
            f"ckpt_path: expected the files of {ranks} ranks in {folder / TAG}, found none of rank "
            f"{missing[0]} ({_example(pattern, missing[0])}): copy the whole folder"
        )
    if surplus := sorted(found - set(range(ranks))):
        raise ValueError(
            f"ckpt_path: expected the files of {ranks} ranks in {folder / TAG}, found one of rank "
            f"{surplus[0]}, left there by another run: take another checkpoint"
        )


def _example(pattern: re.Pattern[str], rank: int) -> str:
    part = "optim" if pattern is OPTIMIZER_FILE else "model"
    return f"zero_pp_rank_{rank}_mp_rank_00_{part}_states.pt"


def _untrained(models: Files, names: Iterable[str]) -> Named:
    """Find what the first rank holds as the model does."""
    file, model = next(iter(models.items()))
    for name in names:
        tensor = model["module"][name]
        yield name, _Place(tensor.shape, [_Span(file, tensor.view(-1))])


def _frozen(models: Files) -> Named:
    """Find weights that were not trained, of which each rank holds a piece (ZeRO-3)."""
    first = next(iter(models.values()))
    for name, shape in (first["frozen_param_shapes"] or {}).items():
        fragments = [
            _Span(file, model["frozen_param_fragments"][name].view(-1))
            for file, model in models.items()
        ]
        yield name, _Place(shape, _cut(fragments, 0, shape.numel()))


def _whole_vectors(groups: Sequence[Mapping[str, torch.Size]], optimizers: Files) -> Named:
    """Find weights within vectors of which each rank holds a piece (ZeRO-1 and ZeRO-2)."""
    states = {file: content["optimizer_state_dict"] for file, content in optimizers.items()}
    paddings = next(iter(states.values())).get("param_alignment_paddings")
    for group, shapes in enumerate(groups):
        spans = [
            _Span(file, state["single_partition_of_fp32_groups"][group])
            for file, state in states.items()
        ]
        start = 0
        for index, (name, shape) in enumerate(shapes.items()):
            yield name, _Place(shape, _cut(spans, start, shape.numel()))
            start += shape.numel() + (paddings[group][index] if paddings else 0)
        # A vector is padded to a multiple of twice the number of ranks, or the padding left out.
        unit = 2 * len(states)
        _require_used_up(math.ceil(start / unit) * unit, math.ceil(_numel(spans) / unit) * unit)


def _whole_weights(groups: Sequence[Mapping[str, torch.Size]], optimizers: Files) -> Named:
    """Find weights of which each rank holds a piece, one after the other (ZeRO-3)."""
    ranks = [
        [_Span(file, vector) for vector in content["optimizer_state_dict"]["fp32_flat_groups"]]
        for file, content in optimizers.items()
    ]
    start = 0
    for name, shape in (item for shapes in groups for item in shapes.items()):
        piece = math.ceil(shape.numel() / len(ranks))
        pieces = [span for spans in ranks for span in _cut(spans, start, piece)]
        yield name, _Place(shape, _cut(pieces, 0, shape.numel()))
        start += piece
    for spans in ranks:
        _require_used_up(start, _numel(spans))


def _require_used_up(used: int, there: int) -> None:
    if used != there:
        raise ValueError(
            f"ckpt_path: expected vectors of {used} weights in a checkpoint of DeepSpeed ZeRO, got "
            f"{there}: it was written by a version of DeepSpeed that is not known"
        )


def _cut(spans: Sequence[_Span], start: int, numel: int) -> list[_Span]:
    """Cut a range out of pieces that follow one another."""
    cut = []
    for file, tensor in spans:
        piece = tensor[max(start, 0) : max(start + numel, 0)]
        if piece.numel():
            cut.append(_Span(file, piece))
        start -= tensor.numel()
    return cut


def _numel(spans: Sequence[_Span]) -> int:
    return sum(span.tensor.numel() for span in spans)


def _read(place: _Place) -> Tensor:
    dtype = place.spans[0].tensor.dtype if place.spans else torch.float32
    whole = torch.empty(place.shape.numel(), dtype=dtype)
    buffer = memoryview(whole.view(torch.uint8).numpy())
    start = 0
    for span in place.spans:
        stop = start + span.tensor.nbytes
        with span.file.open("rb") as file:
            file.seek(span.offset)
            if file.readinto(buffer[start:stop]) != stop - start:
                raise ValueError(f"ckpt_path: {span.file} is cut short: copy it again")
        start = stop
    if start != whole.nbytes:
        raise ValueError(
            f"ckpt_path: expected {whole.nbytes} bytes of a weight, got {start}: the files are not "
            "of one checkpoint"
        )
    return whole.view(place.shape)
