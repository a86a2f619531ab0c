"""Settings of an optimizer: their check before training, and their restoration on resume."""

import math
from collections.abc import Callable
from copy import deepcopy
from inspect import signature
from typing import Any

import lightning as L
import torch
from torch import nn

from lit_entrodrop.training.optim.groups import parameter_groups


def check_can_step(make: Callable[[Any], torch.optim.Optimizer]) -> torch.optim.Optimizer:
    """Refuse an optimizer that cannot take a step on a matrix and a vector.

    Args:
        make: Function that makes the optimizer of some parameter groups.

    Returns:
        The optimizer that it made for the trial.

    Raises:
        ValueError: If it fails, has a negative or infinite learning rate or weight decay, or a
            small step makes a parameter infinite.

    >>> type(check_can_step(torch.optim.SGD)).__name__
    'SGD'
    """
    # Initialized without the generator, whose numbers belong to the run.
    layer = nn.utils.skip_init(nn.Linear, 2, 2)
    for parameter in layer.parameters():
        nn.init.ones_(parameter)
        parameter.grad = torch.ones_like(parameter)
    try:
        optimizer = make(parameter_groups(layer))
        # Optimizers of other packages may need a GPU to step.
        if type(optimizer).__module__.startswith(("torch.", "lit_entrodrop.")):
            for _ in range(2):
                # Momentum is used from the second step on.
                optimizer.step(lambda: 0.0)
    except Exception as error:
        raise ValueError(
            f"model.optimizer: expected one that trains dense parameters, got {error}: choose "
            "another class or other settings"
        ) from error
    for name in {"lr", "weight_decay"} & optimizer.defaults.keys():
        # Some packages check nothing.
        if not 0 <= float(given := optimizer.defaults[name]) < math.inf:
            raise ValueError(
                f"model.optimizer.{name}: expected a finite number of at least 0, got {given}: "
                "correct it"
            )
    rate, decay = (float(optimizer.defaults.get(name, 0)) for name in ("lr", "weight_decay"))
    if rate * decay >= 1:
        raise ValueError(
            "model.optimizer.weight_decay: expected less than 1 / lr, so that a step leaves a part "
            f"of each weight, got {decay:g} with lr {rate:g}: lower one of them"
        )
    if not all(parameter.isfinite().all() for parameter in layer.parameters()):
        raise ValueError(
            "model.optimizer: expected finite settings, got parameters that are infinite or NaN "
            "after a step: correct lr and the other settings"
        )
    return optimizer


def is_of_bitsandbytes(optimizer: torch.optim.Optimizer) -> bool:
    """Return whether an optimizer is one of bitsandbytes, which has its own kernels and state.

    >>> is_of_bitsandbytes(torch.optim.SGD([torch.ones(1)]))
    False
    """
    return type(optimizer).__module__.startswith("bitsandbytes.")


class OptimizerSettings:
    """Settings of an optimizer by the config, which replace those that a checkpoint restores."""

    def __init__(self, optimizer: torch.optim.Optimizer) -> None:
        self.class_name = type(optimizer).__name__
        # Some optimizers count their steps in the groups.
        counted = optimizer.defaults.keys() - signature(type(optimizer)).parameters.keys()
        # Copied, because a schedule may edit a learning rate in place.
        self._groups = [
            {name: deepcopy(group[name]) for name in group.keys() - counted - {"params"}}
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
