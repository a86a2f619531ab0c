"""Penalties on the parameters that a Trainer trains."""

from functools import partial

import torch
from torch import Tensor, nn

from regularizers.compose import Regularizers
from regularizers.penalties import penalize


class TrainerPenalties:
    """Adds the penalties of regularizers to the gradients of each optimizer step.

    Args:
        regularizers: Regularizers of the run.
        model: Model before training; its parameters are whole on each device.
    """

    def __init__(self, regularizers: Regularizers, model: nn.Module) -> None:
        self._regularizers = regularizers
        required = regularizers.requirements
        named = model.named_parameters() if regularizers.penalizes_parameters else ()
        self._names = {each: name for name, each in named if each.requires_grad}
        self._initial: dict[Tensor, Tensor] = {}
        if required.initial_weights:
            self._initial = {each: each.detach().flatten().clone() for each in self._names}
        #: Hashes of the values before training; empty if they are not required.
        self.hashes = [torch.hash_tensor(each).item() for each in self._initial.values()]
        if not required.initial_copy:
            self._initial = {each: values.cpu() for each, values in self._initial.items()}

    def add(self, optimizer: torch.optim.Optimizer, progress: float) -> dict[str, Tensor]:
        """Add the gradients of all penalties, before they are clipped; return the penalties."""
        penalties: dict[str, Tensor] = {}
        for group in optimizer.param_groups if self._names else ():
            for parameter in group["params"]:
                if parameter.grad is None:
                    continue
                initial = partial(self._initial_part, parameter)
                changed = parameter.detach().view(-1), parameter.grad.view(-1), initial
                settings = *changed, group["lr"], progress
                for key, penalty in penalize(self._regularizers, self._names[parameter], *settings):
                    penalties[key] = penalties.get(key, 0) + penalty
        return penalties

    def check_same_initial(self, hashes: list[int]) -> None:
        """Raise a ValueError if a checkpoint belongs to other initial weights."""
        if self.hashes and hashes and self.hashes != hashes:
            raise ValueError(
                "regularizers: expected the initial weights of the run, towards which a "
                "regularizer pulls, got others: build the Trainer with the same pretrained model"
            )

    def _initial_part(self, parameter: Tensor, part: slice) -> Tensor | None:
        initial = self._initial.get(parameter)
        return None if initial is None else initial[part].to(parameter.device).float()
