"""Penalties on parameters: their gradients, wherever the shards are, and the initial weights."""

import hashlib
import json
import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

from lit_entrodrop.runtime.ranks import gather
from lit_entrodrop.runtime.sharding import local_shard
from lit_entrodrop.training.optim.naming import named_parameters
from regularizers import ParameterPart, Regularizers

PART = 2**24  # numbers that are penalized at once


class ParameterPenalties:
    """Adds the penalties that regularizers put on parameters to each optimizer step.

    Args:
        regularizers: Regularizers of the run.
    """

    def __init__(self, regularizers: Regularizers) -> None:
        self._regularizers = regularizers
        self._names: dict[Tensor, str] = {}
        self._initial: dict[Tensor, Tensor] = {}
        self._digest: str | None = None

    def keep_initial(self, model: nn.Module | None) -> None:
        """Note the trained parameters of a model, and their initial values if they are required.

        Call it on every rank, before a checkpoint is restored: a resumed run takes the initial
        values from the model too. Nothing is noted if no model is trained.
        """
        if model is None or not self._regularizers.penalizes_parameters:
            return
        parameters = named_parameters(model)
        self._names = {e.parameter: e.names[0] for e in parameters if e.parameter.requires_grad}
        if self._regularizers.requirements.initial_weights:
            self._initial = {each: _compact(local_shard(each.detach())) for each in self._names}
            self._digest = _digest(self._names)

    def add(
        self, optimizer: torch.optim.Optimizer, progress: float, active: Tensor
    ) -> dict[str, Tensor]:
        """Add the gradients of all penalties to those of the coming step, before they are clipped.

        A decoupled penalty moves the parameters at once. Parameters without a gradient are skipped.

        Args:
            optimizer: Optimizer that is about to step.
            progress: Fraction of all optimizer steps that are done, in [0, 1].
            active: Whether the step changes the parameters, a scalar.

        Returns:
            Penalties by name; their mean over ranks is that of the whole model.
        """
        penalties: dict[str, Tensor] = {}
        for group in optimizer.param_groups if self._names else ():
            for parameter in group["params"]:
                if parameter.grad is not None:
                    self._add_to(parameter, group["lr"] * active, progress, penalties)
        return penalties

    def state_dict(self) -> dict[str, Any]:
        """Return an entry of a checkpoint that identifies the initial weights."""
        return {} if self._digest is None else {"initial_weights": self._digest}

    def load_state_dict(self, checkpoint: Mapping[str, Any]) -> None:
        """Check that a resumed run has the initial weights of the run that it continues.

        Raises:
            ValueError: If they differ.
        """
        saved = checkpoint.get("initial_weights")
        if self._digest is not None and saved not in (None, self._digest):
            raise ValueError(
                "model.lm: expected the initial weights of the run, towards which a regularizer "
                "pulls, got others: resume with the same pretrained model, from the same files"
            )

    def _add_to(
        self, parameter: Tensor, rate: Tensor, progress: float, penalties: dict[str, Tensor]
    ) -> None:
        assert parameter.grad is not None, "the caller skips the others"
        numbers = local_shard(parameter.detach()).view(-1)
        gradient = local_shard(parameter.grad).view(-1)
        initial = self._initial.get(parameter)
        if initial is not None:
            initial = self._initial[parameter] = initial.to(numbers.device)
        share = _ranks_per_copy(parameter)
        for start in range(0, len(numbers), PART):
            part = slice(start, start + PART)
            values = numbers[part].float().clone().requires_grad_()
            before = None if initial is None else initial[part].float()
            seen = ParameterPart(self._names[parameter], values, before)
            for name, regularizer, penalty in self._regularizers.on_parameter(seen, progress):
                [slope] = torch.autograd.grad(penalty, values)
                if regularizer.decoupled:
                    numbers[part] -= (rate.to(slope.device) * slope).to(numbers.dtype)
                else:
                    gradient[part] += slope.to(gradient.dtype)
                penalties[name] = penalties.get(name, 0) + penalty.detach() * share


def _ranks_per_copy(parameter: Tensor) -> int:
    """Return the number of ranks that share a copy of a parameter."""
    if not isinstance(parameter, DTensor):
        return 1
    sizes = zip(parameter.device_mesh.shape, parameter.placements, strict=True)
    return math.prod(size for size, placement in sizes if not placement.is_replicate())


def _compact(values: Tensor) -> Tensor:
    """Return a flat copy, in half precision if that loses nothing."""
    for dtype in (torch.bfloat16, torch.float16):
        half = values.to(dtype)
        if torch.equal(half.to(values.dtype), values):
            return half.reshape(-1).clone()
    return values.reshape(-1).clone()


def _digest(names: Mapping[Tensor, str]) -> str:
    """Return a hash of parameters, whatever their sharding; call it on every rank."""
    own = {
        name: (_bits(local_shard(parameter.detach())), _ranks_per_copy(parameter))
        for parameter, name in names.items()
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
