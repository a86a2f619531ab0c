"""Optimizers, their parameter groups and schedules, and gradient clipping."""

from lit_entrodrop.training.optim.adamw import AdamW, skip_step_if, took_step
from lit_entrodrop.training.optim.gradients import (
    clip_gradient_norm,
    local_gradients,
    one_mesh_per_group,
)
from lit_entrodrop.training.optim.groups import ParameterRule, freeze, parameter_groups
from lit_entrodrop.training.optim.optimization import Optimization, check_same_groups
from lit_entrodrop.training.optim.schedules import LRSchedule
from lit_entrodrop.training.optim.settings import check_can_step

__all__ = [
    "AdamW",
    "LRSchedule",
    "Optimization",
    "ParameterRule",
    "check_can_step",
    "check_same_groups",
    "clip_gradient_norm",
    "freeze",
    "local_gradients",
    "one_mesh_per_group",
    "parameter_groups",
    "skip_step_if",
    "took_step",
]
