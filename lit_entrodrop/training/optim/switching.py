"""Optimizers that evaluate other weights than they train, such as schedule-free ones.

Such an optimizer has the methods ``train`` and ``eval``, which exchange the weights of the model.
Each call rounds them. So the training weights are kept in the optimizer's state while the model has
the evaluation weights, and are restored to the bit. A checkpoint has both.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import lightning as L
import torch
from lightning.pytorch.trainer.states import TrainerFn
from torch import nn
from torch.distributed.fsdp import FSDPModule

from lit_entrodrop.training.optim.gradients import one_mesh_per_group

TRAINING_WEIGHT = "training_weight"


def switches_weights(optimizer: torch.optim.Optimizer) -> bool:
    """Return whether an optimizer evaluates other weights than it trains.

    >>> switches_weights(torch.optim.SGD([torch.ones(1)]))
    False
    """
    return all(callable(getattr(optimizer, name, None)) for name in ("train", "eval"))


@torch.no_grad()
def to_evaluation(optimizer: Any, model: nn.Module) -> None:
    """Give a model the evaluation weights, if its optimizer trains others."""
    if not switches_weights(optimizer) or _evaluates(optimizer):
        return
    for parameter, state in optimizer.state.items():
        state[TRAINING_WEIGHT] = parameter.detach().clone()
    optimizer.eval()
    _forget_gathered(model)


@torch.no_grad()
def to_training(optimizer: Any, model: nn.Module) -> None:
    """Give a model the training weights back, to the bit."""
    if not switches_weights(optimizer):
        return
    optimizer.train()
    for parameter, state in optimizer.state.items():
        if TRAINING_WEIGHT in state:
            parameter.copy_(state.pop(TRAINING_WEIGHT))
    _forget_gathered(model)


@contextmanager
def evaluation_weights(trainer: L.Trainer) -> Iterator[None]:
    """Give the model of a trainer the evaluation weights, within the context."""
    model = trainer.lightning_module
    switched = [
        each for each in trainer.optimizers if switches_weights(each) and not _evaluates(each)
    ]
    for optimizer in switched:
        to_evaluation(optimizer, model)
    yield
    for optimizer in switched:
        to_training(optimizer, model)


class WeightSwitch(L.Callback):
    """Gives the model the evaluation weights during validation and after training.

    Callbacks that run within a validation have them, too.
    """

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Start with the training weights, which a checkpoint has in the optimizer's state."""
        to_training(trainer.optimizers[0], pl_module)

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """End with the evaluation weights."""
        to_evaluation(trainer.optimizers[0], pl_module)

    def on_validation_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Switch to the evaluation weights."""
        if trainer.state.fn == TrainerFn.FITTING:
            to_evaluation(trainer.optimizers[0], pl_module)

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Switch back to the training weights; a later checkpoint exchanges them itself."""
        if trainer.state.fn == TrainerFn.FITTING:
            to_training(trainer.optimizers[0], pl_module)


def initialize_state(optimizer: Any, model: nn.Module) -> None:
    """Make the state that a sharded checkpoint fills, if the optimizer switches weights.

    PyTorch would take a step outside of training, which such an optimizer refuses.
    """
    if not switches_weights(optimizer):
        return
    optimizer.train()
    for group in optimizer.param_groups:
        group["lr"] = 0.0
        for parameter in group["params"]:
            parameter.grad = torch.zeros_like(parameter)
    with one_mesh_per_group(optimizer):
        optimizer.step()
    optimizer.zero_grad()
    to_evaluation(optimizer, model)


def _evaluates(optimizer: torch.optim.Optimizer) -> bool:
    return any(TRAINING_WEIGHT in state for state in optimizer.state.values())


def _forget_gathered(model: nn.Module) -> None:
    for module in model.modules():
        if isinstance(module, FSDPModule):
            # Weights that it gathered for the last forward pass are stale.
            module.reshard()
