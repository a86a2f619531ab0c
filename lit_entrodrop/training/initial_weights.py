"""The weights of a model before training, in its files or in memory, wherever the shards are."""

import hashlib
import json
import math
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.distributed.tensor import DTensor

from lit_entrodrop.model.stored_weights import stored_weights
from lit_entrodrop.runtime.ranks import gather
from lit_entrodrop.runtime.sharding import local_shard
from lit_entrodrop.training.optim.naming import NamedParameter


class InitialWeights:
    """Values of parameters, or of this rank's shards of them, at the time of the call.

    Values that the safetensors files of the model have, to the bit, are read from there. Others
    are copied, in half precision if that loses nothing. Call it on every rank.

    Args:
        parameters: Parameters.
        source: Location of the pretrained model; None for none.
        keep_copy: Whether a device other than the CPU copies values of files, to read them once.
    """

    def __init__(
        self, parameters: Sequence[NamedParameter], source: str | None, keep_copy: bool = True
    ) -> None:
        self._keep_copy = keep_copy
        files = {} if source is None else stored_weights(source)
        self._values: dict[Tensor, Tensor] = {}
        self._in_files: set[Tensor] = set()
        for each in parameters:
            stored = _in_file(each, files)
            if stored is not None:
                self._in_files.add(each.parameter)
            own = local_shard(each.parameter.detach())
            self._values[each.parameter] = _compact(own) if stored is None else stored
        #: Hash of the values, whatever their sharding.
        self.digest = _digest(parameters)

    @property
    def copied(self) -> int:
        """Number of values that are in memory."""
        copied = self._values.keys() - self._in_files
        return sum(self._values[each].numel() for each in copied)

    def part(self, parameter: Tensor, place: slice) -> Tensor:
        """Return some values of a parameter, ``[n]`` fp32, on its device."""
        values, own = self._values[parameter], local_shard(parameter.detach())
        kept = self._keep_copy or parameter not in self._in_files
        if values.device != own.device and kept:
            values = self._values[parameter] = _compact(values).to(own.device)
        return values[place].to(own.device).to(own.dtype).float()


def ranks_per_copy(parameter: Tensor) -> int:
    """Return the number of ranks that share a copy of a parameter."""
    if not isinstance(parameter, DTensor):
        return 1
    sizes = zip(parameter.device_mesh.shape, parameter.placements, strict=True)
    return math.prod(size for size, placement in sizes if not placement.is_replicate())


def _in_file(named: NamedParameter, files: dict[str, Tensor]) -> Tensor | None:
    """Return the values of a parameter as its file has them, flat; None if others are there."""
    # Files of a model without its head leave out the first part of each name.
    names = [*named.names, *(name.partition(".")[2] for name in named.names)]
    found = next((files[name] for name in names if name in files), None)
    if found is None or found.shape != named.parameter.shape or not found.is_floating_point():
        return None
    own, rows = local_shard(named.parameter.detach()), _rows(named.parameter)
    if rows is None:
        return None
    part = found[rows]
    same = part.shape == own.shape and torch.equal(part.to(own.device).to(own.dtype), own)
    return part.reshape(-1) if same else None


def _rows(parameter: Tensor) -> slice | None:
    """Return the rows that this rank has; None if it has parts of rows, or is sharded twice."""
    if not isinstance(parameter, DTensor):
        return slice(None)
    mesh = parameter.device_mesh
    sharded = [at for at, each in enumerate(parameter.placements) if not each.is_replicate()]
    if not sharded:
        return slice(None)
    if len(sharded) > 1 or not parameter.placements[sharded[0]].is_shard(0):
        return None
    size = -(-parameter.shape[0] // mesh.size(sharded[0]))
    start = size * mesh.get_local_rank(sharded[0])
    return slice(start, start + size)


def _compact(values: Tensor) -> Tensor:
    """Return a flat copy, in half precision if that loses nothing."""
    for dtype in (torch.bfloat16, torch.float16):
        half = values.to(dtype)
        if torch.equal(half.to(values.dtype), values):
            return half.reshape(-1).clone()
    return values.reshape(-1).clone()


def _digest(parameters: Sequence[NamedParameter]) -> str:
    own = {
        each.names[0]: (_bits(local_shard(each.parameter.detach())), ranks_per_copy(each.parameter))
        for each in parameters
    }
    ranks = gather(own)
    # Each copy is summed by the ranks that share it.
    sums = {
        name: sum(each[name][0] for each in ranks) * shared // len(ranks)
        for name, (_, shared) in own.items()
    }
    return hashlib.sha256(json.dumps(sums, sort_keys=True).encode()).hexdigest()


def _bits(values: Tensor) -> int:
    """Return the sum of numbers, read as integers, which does not depend on their order."""
    kind = {2: torch.int16, 4: torch.int32, 8: torch.int64}[values.element_size()]
    return int(values.contiguous().view(kind).sum(dtype=torch.int64))
