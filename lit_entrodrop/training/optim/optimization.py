"""The optimizer of a run: its parameter groups, its schedules, and what a resumed run keeps."""

from collections.abc import Callable, Mapping, Sequence
from itertools import chain
from typing import Any

import lightning as L
import torch
from lightning.pytorch.utilities import rank_zero_info, rank_zero_warn
from torch import nn

from lit_entrodrop.model.adapters.settings import LoRAConfig
from lit_entrodrop.runtime.sharding import unsharded_shape
from lit_entrodrop.training.optim.groups import (
    ParameterRule,
    apply_factors,
    group_table,
    parameter_groups,
)
from lit_entrodrop.training.optim.naming import named_parameters
from lit_entrodrop.training.optim.schedules import LRSchedule, with_schedule
from lit_entrodrop.training.optim.settings import OptimizerSettings
from regularizers import Curriculum

# Larger than the factors of any usual recipe; 16 is that of LoRA+.
LARGE_FACTOR = 100
# Adapter matrices whose learning rate LoRA+ raises.
LORA_B = "lora_B|lora_embedding_B"


class Optimization:
    """Makes the optimizer of a run, and sets the learning rate and weight decay of its groups.

    Args:
        make: Function that makes the optimizer of parameter groups.
        lr_schedule: Learning-rate schedule.
        rules: Settings by the names of parameters.
        layer_lr_decay: Learning rate of each transformer block as a factor of that of the next one.
        weight_decay_schedule: Weight decay over training, in place of the optimizer's; None for a
            constant one.

    Raises:
        ValueError: If ``layer_lr_decay`` is not in (0, 1].
    """

    def __init__(
        self,
        make: Callable[[Any], torch.optim.Optimizer],
        lr_schedule: LRSchedule,
        rules: Sequence[ParameterRule] = (),
        layer_lr_decay: float = 1.0,
        weight_decay_schedule: Curriculum | None = None,
    ) -> None:
        if not 0 < layer_lr_decay <= 1:
            raise ValueError(
                "model.layer_lr_decay: expected a factor above 0 and up to 1, got "
                f"{layer_lr_decay}: 0.9 is usual, and 1 gives all layers the same learning rate"
            )
        self.make = make
        self.lr_schedule = lr_schedule
        self.rules = list(rules)
        self.layer_lr_decay = layer_lr_decay
        self.weight_decay_schedule = weight_decay_schedule
        self._settings: OptimizerSettings | None = None
        self._first_factor = 1.0

    @property
    def optimizer_class(self) -> type[torch.optim.Optimizer]:
        """Class of the optimizer."""
        return type(self.make([{"params": [nn.Parameter(torch.zeros(1, 1))]}]))

    def build(self, module: nn.Module) -> torch.optim.Optimizer:
        """Make the optimizer of a module; print its groups if settings of the config form them.

        Raises:
            ValueError: If a weight decay is set, and the optimizer has none.
        """
        optimizer = self.make(self.groups(module))
        sets_decay = any(rule.weight_decay is not None for rule in self.rules)
        if "weight_decay" not in optimizer.defaults and (sets_decay or self.weight_decay_schedule):
            raise ValueError(
                "model.optimizer: expected one with weight decay, which model.groups or "
                f"model.weight_decay_schedule sets, got {type(optimizer).__name__}: remove these "
                "settings, or choose another optimizer"
            )
        apply_factors(optimizer)
        check_factors(optimizer)
        self._first_factor = optimizer.param_groups[0].get("lr_factor", 1.0)
        for group in optimizer.param_groups:
            # A checkpoint saves each setting of a group for each of its parameters.
            group.pop("lr_factor", None)
            if self.weight_decay_schedule is None:
                group.pop("decay_factor", None)
        self._settings = OptimizerSettings(optimizer)
        if len(optimizer.param_groups) > 2 or self.rules:
            rank_zero_info(group_table(optimizer.param_groups, module))
        return optimizer

    def planned_groups(
        self, module: nn.Module, adapters: LoRAConfig | None = None
    ) -> list[dict[str, Any]]:
        """Return the groups that the optimizer of a module will have, with their settings.

        Args:
            module: Module, on any device.
            adapters: Its adapters.
        """
        groups = self.groups(module, adapters)
        # Some optimizers accept no parameters on the meta device.
        shapes = [[1] * len(unsharded_shape(each["params"][0])) for each in groups]
        made = self.make(
            [
                {**group, "params": [nn.Parameter(torch.zeros(shape))]}
                for group, shape in zip(groups, shapes, strict=True)
            ]
        )
        apply_factors(made)
        pairs = zip(made.param_groups, groups, strict=True)
        return [{**group, "params": own["params"]} for group, own in pairs]

    def groups(self, module: nn.Module, adapters: LoRAConfig | None = None) -> list[dict[str, Any]]:
        """Return the parameter groups of a module, as its optimizer needs them."""
        separate_hidden = getattr(self.optimizer_class, "separates_hidden", False)
        adapters = adapters or getattr(getattr(module, "lm", None), "lora", None)
        factors = {} if adapters is None else {LORA_B: adapters.loraplus_lr_ratio}
        return parameter_groups(module, self.rules, self.layer_lr_decay, factors, separate_hidden)

    def scheduled(
        self, optimizer: torch.optim.Optimizer, total_steps: Callable[[], int]
    ) -> dict[str, Any]:
        """Return an optimizer and its learning-rate schedule, as Lightning expects them."""
        return with_schedule(optimizer, lambda step: self.lr_schedule.factor(step, total_steps()))

    def prepare_step(self, optimizer: torch.optim.Optimizer, progress: float) -> dict[str, float]:
        """Set the weight decay of the coming step, and return the schedules at it, to be logged.

        Args:
            optimizer: Optimizer that is about to step.
            progress: Fraction of all optimizer steps that are done, in [0, 1].
        """
        groups = optimizer.param_groups
        # Some optimizers store a tensor.
        found = {"learning_rate": float(groups[0]["lr"]) / self._first_factor}
        if self.weight_decay_schedule is not None:
            found["weight_decay"] = self.weight_decay_schedule(progress)
            for group in groups:
                group["weight_decay"] = found["weight_decay"] * group["decay_factor"]
        return found

    def resume(self, trainer: L.Trainer, total_steps: int) -> None:
        """Apply the settings of the config to a restored optimizer, at the start of training."""
        assert self._settings is not None, "the optimizer is built before training"
        factor = self.lr_schedule.factor(trainer.global_step, total_steps)
        self._settings.apply(trainer, factor)

    def state_dict(self, module: nn.Module) -> dict[str, Any]:
        """Return the entries of a checkpoint: what the state of the optimizer belongs to."""
        return {
            "optimizer_class": self.optimizer_class.__name__,
            "parameter_groups": self.parameter_names(module),
        }

    def parameter_names(self, module: nn.Module) -> list[list[str]]:
        """Return the names of the parameters in each group of a module."""
        return _names(module, self.groups(module))


def check_same_optimizer(checkpoint: Mapping[str, Any], module: Any) -> None:
    """Refuse to resume from the state of another optimizer or other groups, before it is loaded.

    Args:
        checkpoint: Content of the checkpoint.
        module: Module of the run, with an :class:`Optimization`.

    Raises:
        ValueError: If the optimizer has another class, another parameter was trained, or it was in
            another group.
    """
    saved_class = checkpoint.get("optimizer_class")
    if saved_class not in (None, given := module.optimization.optimizer_class.__name__):
        raise ValueError(
            f"model.optimizer: expected {saved_class}, whose state is in the checkpoint, got "
            f"{given}: use {saved_class}, or start a new run from the exported model"
        )
    configured = module.optimization.parameter_names(module)
    saved = checkpoint.get("parameter_groups")
    if saved is None:
        # Of an earlier version, which had two groups, and froze nothing by name.
        freezes = any(rule.freeze for rule in module.optimization.rules)
        saved = [] if freezes else _names(module, parameter_groups(module))
    if saved == configured:
        return
    before, now = (set(chain.from_iterable(groups)) for groups in (saved, configured))
    if saved and (changed := sorted(before ^ now)):
        what = f"{changed[0]} is {'now trained' if changed[0] in now else 'no longer trained'}"
    else:
        what = f"{len(saved)} in the checkpoint, {len(configured)} now"
    raise ValueError(
        "model.groups: expected the parameter groups of the checkpoint, to which the state of the "
        f"optimizer belongs, got others ({what}): keep match, freeze, layer_lr_decay and whether "
        "lora.loraplus_lr_ratio is 1, or start a new run from the exported model; lr and "
        "weight_decay may change"
    )


def check_factors(optimizer: torch.optim.Optimizer) -> None:
    """Warn of groups that learn much faster than the config says, and refuse ones that only decay.

    Raises:
        ValueError: If a step would subtract a whole weight, or more, from itself.
    """
    for group in optimizer.param_groups:
        if group.get("lr", 0) * group.get("weight_decay", 0) >= 1:
            raise ValueError(
                f"model.groups: expected weight decay x learning rate below 1 for {group['name']}, "
                f"got {group['weight_decay']:g} x {group['lr']:g}: lower one of the factors"
            )
        if group.get("lr_factor", 1) > LARGE_FACTOR:
            rank_zero_warn(
                f"model.groups: the learning rate of {group['name']} is {group['lr']:g}, "
                f"{group['lr_factor']:g} times that of model.optimizer, and may let its parameters "
                "diverge: lr of a group is a factor of the optimizer's"
            )


def _names(module: nn.Module, groups: Sequence[Mapping[str, Any]]) -> list[list[str]]:
    names = {each.parameter: each.names[0] for each in named_parameters(module)}
    return [[names[each] for each in group["params"]] for group in groups]
