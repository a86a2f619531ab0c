"""Optimizers, their parameter groups and schedules, and gradient clipping."""

from lit_entrodrop.training.optim.adamw import AdamW
from lit_entrodrop.training.optim.gradients import (
    clip_gradient_norm,
    local_gradients,
    one_mesh_per_group,
)
from lit_entrodrop.training.optim.groups import (
    ParameterRule,
    freeze,
    group_table,
    parameter_groups,
)
from lit_entrodrop.training.optim.muon import Muon
from lit_entrodrop.training.optim.optimization import Optimization, check_same_optimizer
from lit_entrodrop.training.optim.schedules import LRSchedule
from lit_entrodrop.training.optim.settings import check_can_step, is_of_bitsandbytes
from lit_entrodrop.training.optim.skipping import skip_step_if, took_step
from lit_entrodrop.training.optim.switching import (
    WeightSwitch,
    evaluation_weights,
    initialize_state,
    switches_weights,
    to_evaluation,
    to_training,
)

__all__ = [
    "AdamW",
    "LRSchedule",
    "Muon",
    "Optimization",
    "ParameterRule",
    "WeightSwitch",
    "check_can_step",
    "check_same_optimizer",
    "clip_gradient_norm",
    "evaluation_weights",
    "freeze",
    "group_table",
    "initialize_state",
    "is_of_bitsandbytes",
    "local_gradients",
    "one_mesh_per_group",
    "parameter_groups",
    "skip_step_if",
    "switches_weights",
    "to_evaluation",
    "to_training",
    "took_step",
]
