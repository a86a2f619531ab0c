"""Locations of the weights in the files that the ranks of DeepSpeed ZeRO wrote.

Each rank flattens its share of the fp32 weights into a few vectors. ZeRO-1 and ZeRO-2 split the
vector of all weights into one piece per rank; ZeRO-3 splits every weight. DeepSpeed's own
``zero_to_fp32`` documents the layout, but unpickles any object, and needs twice the memory for
ZeRO-2.
"""

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

Files = dict[Path, dict[str, Any]]
Shapes = Mapping[str, torch.Size]


class Span(NamedTuple):
    """Part of a file: a one-dimensional tensor whose content was not read."""

    file: Path
    tensor: Tensor

    @property
    def offset(self) -> int:
        """Position of the first byte in the file."""
        start = self.tensor.untyped_storage()._checkpoint_offset
        assert start is not None, "torch.load sets it for the meta device"
        return start + int(self.tensor.storage_offset()) * self.tensor.itemsize


class Place(NamedTuple):
    """Location of a weight: its shape and its consecutive pieces."""

    shape: torch.Size
    spans: list[Span]


Named = Iterator[tuple[str, Place]]


def find_weights(models: Files, optimizers: Files, stage: int) -> dict[str, Place]:
    """Find the weights of a checkpoint of ZeRO stage 1 to 3; trained weights are fp32.

    The contents of files are on the meta device, ordered by rank.

    Raises:
        ValueError: If the length of a vector differs from the weights it should have.
    """
    first = next(iter(models.values()))
    if stage == 3:
        places = dict(_untrained(models, first["buffer_names"])) | dict(_frozen(models))
        places |= _whole_weights(first["param_shapes"], optimizers)
    else:
        places = dict(_untrained(models, first["module"]))
        places |= _whole_vectors(first["param_shapes"], optimizers)
    shared = first["shared_params"].items()
    places |= {name: places[source] for name, source in shared if source in places}
    for shape, spans in places.values():
        _require_length(shape.numel(), _numel(spans))
    return places


def read_weight(place: Place) -> Tensor:
    """Read a weight directly into its tensor, without another copy.

    Raises:
        ValueError: If a file is truncated; names the file.
    """
    dtype = place.spans[0].tensor.dtype if place.spans else torch.float32
    whole = torch.empty(place.shape.numel(), dtype=dtype)
    buffer = whole.view(torch.uint8).numpy().data
    start = 0
    for span in place.spans:
        stop = start + span.tensor.nbytes
        with span.file.open("rb") as file:
            file.seek(span.offset)
            if file.readinto(buffer[start:stop]) != span.tensor.nbytes:
                raise ValueError(f"ckpt_path: {span.file} is truncated: copy it again")
        start = stop
    return whole.view(place.shape)


def _untrained(models: Files, names: Iterable[str]) -> Named:
    """Locate tensors that the first rank has in full."""
    file, model = next(iter(models.items()))
    for name in names:
        tensor = model["module"][name]
        yield name, Place(tensor.shape, [Span(file, tensor.view(-1))])


def _frozen(models: Files) -> Named:
    """Locate frozen weights, which are split over ranks (ZeRO-3)."""
    first = next(iter(models.values()))
    for name, shape in (first["frozen_param_shapes"] or {}).items():
        fragments = [
            Span(file, model["frozen_param_fragments"][name].view(-1))
            for file, model in models.items()
        ]
        yield name, Place(shape, _cut(fragments, 0, shape.numel()))


def _whole_vectors(groups: Sequence[Shapes], optimizers: Files) -> Named:
    """Locate weights in vectors that are split over ranks (ZeRO-1 and ZeRO-2)."""
    states = {file: content["optimizer_state_dict"] for file, content in optimizers.items()}
    paddings = next(iter(states.values())).get("param_alignment_paddings")
    for group, shapes in enumerate(groups):
        spans = [
            Span(file, state["single_partition_of_fp32_groups"][group])
            for file, state in states.items()
        ]
        start = 0
        for index, (name, shape) in enumerate(shapes.items()):
            yield name, Place(shape, _cut(spans, start, shape.numel()))
            start += shape.numel() + (paddings[group][index] if paddings else 0)
        # A vector may be padded to a multiple of twice the number of ranks.
        unit = 2 * len(states)
        _require_length(math.ceil(start / unit) * unit, math.ceil(_numel(spans) / unit) * unit)


def _whole_weights(groups: Sequence[Shapes], optimizers: Files) -> Named:
    """Locate weights that are each split over ranks (ZeRO-3)."""
    ranks = [
        [Span(file, vector) for vector in content["optimizer_state_dict"]["fp32_flat_groups"]]
        for file, content in optimizers.items()
    ]
    start = 0
    for name, shape in (item for shapes in groups for item in shapes.items()):
        piece = math.ceil(shape.numel() / len(ranks))
        pieces = [span for spans in ranks for span in _cut(spans, start, piece)]
        yield name, Place(shape, _cut(pieces, 0, shape.numel()))
        start += piece
    for spans in ranks:
        _require_length(start, _numel(spans))


def _require_length(expected: int, found: int) -> None:
    if found != expected:
        raise ValueError(
            f"ckpt_path: expected {expected} weights in a vector of DeepSpeed ZeRO, got {found}: "
            "the files belong to several checkpoints, or to an unsupported version of DeepSpeed"
        )


def _cut(spans: Sequence[Span], start: int, numel: int) -> list[Span]:
    """Return a range of consecutive pieces."""
    cut = []
    for file, tensor in spans:
        piece = tensor[max(start, 0) : max(start + numel, 0)]
        if piece.numel():
            cut.append(Span(file, piece))
        start -= tensor.numel()
    return cut


def _numel(spans: Sequence[Span]) -> int:
    return sum(span.tensor.numel() for span in spans)
