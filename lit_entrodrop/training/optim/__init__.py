"""Optimizers, their parameter groups and schedules, and gradient clipping."""

from lit_entrodrop.training.optim.adamw import AdamW, skip_step_if
from lit_entrodrop.training.optim.gradients import (
    clip_gradient_norm,
    local_gradients,
    one_mesh_per_group,
)
from lit_entrodrop.training.optim.groups import decay_groups
from lit_entrodrop.training.optim.schedules import LRSchedule, with_schedule
from lit_entrodrop.training.optim.settings import OptimizerSettings, check_can_step

__all__ = [
    "AdamW",
    "LRSchedule",
    "OptimizerSettings",
    "check_can_step",
    "clip_gradient_norm",
    "decay_groups",
    "local_gradients",
    "one_mesh_per_group",
    "skip_step_if",
    "with_schedule",
]
