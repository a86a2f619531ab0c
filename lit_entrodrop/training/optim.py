"""Optimizer, its parameter groups and the learning rate over training."""

import contextlib
import math
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.tensor import DTensor
from torch.nn.utils import clip_grads_with_norm_, get_total_norm

from lit_entrodrop.runtime.sharding import local_shard, unsharded_shape


class AdamW(torch.optim.AdamW):
    """AdamW in its fused form.

    Args:
        params: parameters or parameter groups.
        lr: peak learning rate.
        betas: decay rates of the two moments.
        eps: added to the denominator.
        weight_decay: decoupled weight decay per unit of learning rate; applied to matrices only.
    """

    def __init__(
        self,
        params: Iterable[Any],
        lr: float = 2e-5,
        betas: tuple[float, float] = (0.9, 0.95),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
    ) -> None:
        super().__init__(params, lr, betas, eps, weight_decay, fused=True)
        # Else torch would leave unscaling to the fused step, and Lightning could not clip.
        self._step_supports_amp_scaling = False


@dataclass
class LRSchedule:
    """Learning rate over training: linear warm-up, then decay.

    Args:
        warmup: optimizer steps of warm-up if 1 or more, else a share of all steps.
        decay: shape of the decay after the warm-up.
        final: learning rate at the end, as a share of the peak (not for ``constant``).
    """

    warmup: float = 0.03
    decay: Literal["cosine", "linear", "constant"] = "cosine"
    final: float = 0.0

    def __post_init__(self) -> None:
        """Refuse settings out of range."""
        if not (0 <= self.warmup < math.inf and 0 <= self.final <= 1):
            raise ValueError(
                "lr_schedule: expected warmup >= 0 and final in [0, 1], "
                f"got warmup={self.warmup}, final={self.final}"
            )

    def factor(self, step: int, total_steps: int) -> float:
        """Return the learning rate of a step as a share of its peak.

        Args:
            step: optimizer steps done.
            total_steps: optimizer steps of the whole run.

        >>> LRSchedule(warmup=10).factor(4, 100)
        0.5
        """
        warmup = self.warmup if self.warmup >= 1 else self.warmup * total_steps
        if step < warmup:
            return min((step + 1) / warmup, 1.0)
        progress = min((step - warmup) / max(total_steps - warmup, 1), 1.0)
        remaining = {
            "cosine": (1 + math.cos(math.pi * progress)) / 2,
            "linear": 1 - progress,
            "constant": 1.0,
        }[self.decay]
        return self.final + (1 - self.final) * remaining


def decay_groups(module: nn.Module) -> list[dict[str, Any]]:
    """Split the trainable parameters: matrices decay, norms and biases do not.

    >>> [len(group["params"]) for group in decay_groups(nn.Linear(2, 2))]
    [1, 1]
    """
    trainable = [parameter for parameter in module.parameters() if parameter.requires_grad]
    groups: list[dict[str, Any]] = [
        {"params": [p for p in trainable if len(unsharded_shape(p)) >= 2]},
        {"params": [p for p in trainable if len(unsharded_shape(p)) < 2], "weight_decay": 0.0},
    ]
    return [group for group in groups if group["params"]]


def local_gradients(optimizer: torch.optim.Optimizer) -> list[Tensor]:
    """Return what this rank holds of the gradients that an optimizer steps along."""
    parameters = (p for group in optimizer.param_groups for p in group["params"])
    gradients = (parameter.grad for parameter in parameters if parameter.grad is not None)
    return [local_shard(each) for each in gradients]


def clip_gradient_norm(optimizer: torch.optim.Optimizer, max_norm: float) -> None:
    """Scale the gradients down to a norm, taken over all parameters, however they are sharded.

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
    """Split parameter groups, for a while, by the devices over which parameters are sharded.

    PyTorch's fused and foreach kernels take no tensors of two meshes. A checkpoint must not depend
    on it, so that it is not for ever.
    """
    whole = optimizer.param_groups
    optimizer.param_groups = [
        {**group, "params": parameters}
        for group in whole
        for parameters in _by_mesh(group["params"])
    ]
    try:
        yield
    finally:
        optimizer.param_groups = whole


def _by_mesh(parameters: Iterable[nn.Parameter]) -> list[list[nn.Parameter]]:
    groups: dict[DeviceMesh | None, list[nn.Parameter]] = defaultdict(list)
    for parameter in parameters:
        groups[parameter.device_mesh if isinstance(parameter, DTensor) else None].append(parameter)
    return list(groups.values())
