"""The optimizer, its parameter groups, gradient clipping and the learning-rate schedule."""

import contextlib
import math
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from copy import deepcopy
from dataclasses import dataclass
from typing import Any, Literal

import lightning as L
import torch
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.tensor import DTensor
from torch.nn.utils import clip_grads_with_norm_, get_total_norm

from lit_entrodrop.runtime.sharding import local_shard, unsharded_shape


class AdamW(torch.optim.AdamW):
    """AdamW in its fused form.

    Args:
        params: Parameters or parameter groups.
        lr: Peak learning rate.
        betas: Decay rates of the two moments.
        eps: Number added to the denominator.
        weight_decay: Decoupled weight decay per unit of learning rate; applied to matrices only.
    """

    found_inf: Tensor | None = None

    def __init__(
        self,
        params: Iterable[Any],
        lr: float = 2e-5,
        betas: tuple[float, float] = (0.9, 0.95),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
    ) -> None:
        super().__init__(params, lr, betas, eps, weight_decay, fused=True)
        # With fp16, torch would unscale gradients within the step, after Lightning clips them.
        self._step_supports_amp_scaling = False


def skip_step_if(optimizer: torch.optim.Optimizer, condition: Tensor) -> None:
    """Let the coming step leave weights and momentum unchanged if a condition holds.

    A step with a zero gradient would still apply momentum and weight decay. The fused AdamW decides
    on the device; for other optimizers, the host reads the condition and removes the gradients. If
    DeepSpeed holds them, the host sets the learning rate to zero until its schedule sets the next
    one; then the momentum decays.

    Args:
        optimizer: Optimizer that is about to step.
        condition: Scalar bool.

    >>> parameter = nn.Parameter(torch.ones(1))
    >>> parameter.grad = torch.ones(1)
    >>> optimizer = AdamW([parameter], lr=0.1)
    >>> skip_step_if(optimizer, torch.tensor(True))
    >>> optimizer.step()
    >>> parameter.item()
    1.0
    """
    # DeepSpeed wraps the optimizer.
    inner = getattr(optimizer, "optimizer", optimizer)
    if isinstance(inner, AdamW):
        # As a gradient scaler does when a gradient is not finite.
        inner.found_inf = condition.float()
    elif condition and inner is optimizer:
        optimizer.zero_grad()
    elif condition:
        for group in optimizer.param_groups:
            group["lr"] = 0.0


@dataclass
class LRSchedule:
    """Learning-rate schedule: linear warm-up, then decay.

    Args:
        warmup: Length of the warm-up: optimizer steps if 1 or more, else a share of all steps.
        decay: Shape of the decay after the warm-up.
        final: Learning rate at the end, as a share of the peak; unused by ``constant``.
    """

    warmup: float = 0.03
    decay: Literal["cosine", "linear", "constant"] = "cosine"
    final: float = 0.0

    def __post_init__(self) -> None:
        if not (0 <= self.warmup < math.inf and 0 <= self.final <= 1):
            raise ValueError(
                "lr_schedule: expected warmup >= 0 and final in [0, 1], "
                f"got warmup={self.warmup}, final={self.final}"
            )

    def factor(self, step: int, total_steps: int) -> float:
        """Return the learning rate after some optimizer steps, as a share of its peak.

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
    """Split the trainable parameters into matrices, which decay, and the rest, which does not.

    >>> [len(group["params"]) for group in decay_groups(nn.Linear(2, 2))]
    [1, 1]
    """
    trainable = [parameter for parameter in module.parameters() if parameter.requires_grad]
    groups: list[dict[str, Any]] = [
        {"params": [p for p in trainable if len(unsharded_shape(p)) >= 2]},
        {"params": [p for p in trainable if len(unsharded_shape(p)) < 2], "weight_decay": 0.0},
    ]
    return [group for group in groups if group["params"]]


def check_can_step(optimizer: Callable[[Any], torch.optim.Optimizer]) -> None:
    """Refuse an optimizer that cannot take a step on a matrix and a vector.

    Args:
        optimizer: Function that makes the optimizer of some parameter groups.

    Raises:
        ValueError: If it fails, or a small step makes a parameter infinite.

    >>> check_can_step(torch.optim.SGD)
    """
    # Initialized without the generator, whose numbers belong to the run.
    layer = nn.utils.skip_init(nn.Linear, 2, 2)
    for parameter in layer.parameters():
        nn.init.ones_(parameter)
        parameter.grad = torch.ones_like(parameter)
    try:
        made = optimizer(decay_groups(layer))
        # Optimizers of other packages may need a GPU to step.
        if type(made).__module__.startswith(("torch.", "lit_entrodrop.")):
            made.step(lambda: 0.0)
    except Exception as error:
        raise ValueError(
            f"model.optimizer: expected one that trains dense parameters, got {error}: choose "
            "another class or other settings"
        ) from error
    if not all(parameter.isfinite().all() for parameter in layer.parameters()):
        raise ValueError(
            "model.optimizer: expected finite settings, got parameters that are infinite or NaN "
            "after a step: correct lr and the other settings"
        )


def with_schedule(optimizer: torch.optim.Optimizer, factor: Callable[[int], float]) -> Any:
    """Return an optimizer and its schedule, a factor of its peak, as Lightning expects them."""
    scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, factor)
    return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}


class OptimizerSettings:
    """Settings of an optimizer by the config, which replace those that a checkpoint restores."""

    def __init__(self, optimizer: torch.optim.Optimizer) -> None:
        self.class_name = type(optimizer).__name__
        # Copied, because a schedule may edit a learning rate in place.
        self._groups = [
            {name: deepcopy(value) for name, value in group.items() if name != "params"}
            for group in optimizer.param_groups
        ]

    def apply(self, trainer: L.Trainer, factor: float) -> None:
        """Apply the settings to the restored optimizer of a trainer and to its schedule.

        Args:
            trainer: Trainer that has restored its checkpoint.
            factor: Learning rate of the next step as a share of its peak.
        """
        groups = trainer.optimizers[0].param_groups
        for group, settings in zip(groups, self._groups, strict=True):
            group.update(settings, initial_lr=settings["lr"], lr=settings["lr"] * factor)
        scheduler = trainer.lr_scheduler_configs[0].scheduler
        scheduler.base_lrs = [settings["lr"] for settings in self._groups]


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
