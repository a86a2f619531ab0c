"""Gradient norms and clipping, wherever the shards are."""

import contextlib
from collections import defaultdict
from collections.abc import Iterable, Iterator

import torch
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.tensor import DTensor
from torch.nn.utils import clip_grads_with_norm_, get_total_norm

from lit_entrodrop.runtime.sharding import local_shard


def local_gradients(optimizer: torch.optim.Optimizer) -> list[Tensor]:
    """Return the gradients of an optimizer's parameters, or this rank's shards of them."""
    parameters = (p for group in optimizer.param_groups for p in group["params"])
    gradients = (parameter.grad for parameter in parameters if parameter.grad is not None)
    return [local_shard(each) for each in gradients]


def clip_gradient_norm(optimizer: torch.optim.Optimizer, max_norm: float) -> None:
    """Clip the L2 norm of all gradients together, also if their shards are on different meshes.

    >>> parameter = nn.Parameter(torch.zeros(2))
    >>> parameter.grad = torch.tensor([3.0, 4.0])
    >>> clip_gradient_norm(torch.optim.SGD([parameter]), 1.0)
    >>> parameter.grad
    tensor([0.6000, 0.8000])
    """
    groups = _by_mesh(p for group in optimizer.param_groups for p in group["params"])
    norms = [get_total_norm([p.grad for p in group if p.grad is not None]) for group in groups]
    whole = [norm.full_tensor() if isinstance(norm, DTensor) else norm for norm in norms]
    total = get_total_norm(whole)
    for group in groups:
        clip_grads_with_norm_(group, max_norm, total)


@contextlib.contextmanager
def one_mesh_per_group(optimizer: torch.optim.Optimizer) -> Iterator[None]:
    """Split parameter groups by device mesh, within the context.

    PyTorch's fused and foreach kernels cannot mix tensors of two meshes. The split is undone
    because a checkpoint must not depend on it.
    """
    whole = optimizer.param_groups
    split = [
        (group, {**group, "params": parameters})
        for group in whole
        for parameters in _by_mesh(group["params"])
    ]
    optimizer.param_groups = [part for _, part in split]
    try:
        yield
    finally:
        optimizer.param_groups = whole
        for group, part in split:
            # Some optimizers count their steps in the groups.
            group.update({**part, "params": group["params"]})


def _by_mesh(parameters: Iterable[nn.Parameter]) -> list[list[nn.Parameter]]:
    groups: dict[DeviceMesh | None, list[nn.Parameter]] = defaultdict(list)
    for parameter in parameters:
        groups[parameter.device_mesh if isinstance(parameter, DTensor) else None].append(parameter)
    return list(groups.values())
