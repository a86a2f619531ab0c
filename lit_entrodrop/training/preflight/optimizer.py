"""Checks that strategy, device and learning-rate schedule suit an optimizer."""

import lightning as L
import torch
from lightning.pytorch.strategies import ModelParallelStrategy, Strategy

from lit_entrodrop.training.optim import LRSchedule, is_of_bitsandbytes, switches_weights


def check_suits(
    optimizer: torch.optim.Optimizer, trainer: L.Trainer, lr_schedule: LRSchedule
) -> None:
    """Refuse an optimizer of a fit that cannot train under the other settings.

    Raises:
        ValueError: If one excludes it; the message names the setting and the remedy.
    """
    check_strategy_of(optimizer, type(trainer.strategy))
    check_schedule_of(optimizer, lr_schedule)
    if getattr(optimizer, "is_paged", False) and trainer.strategy.root_device.type == "cpu":
        name = type(optimizer).__name__
        raise ValueError(
            f"model.optimizer: expected one without paging on the CPU, got {name}, whose state "
            f"moves between GPU and host: choose {name.removeprefix('Paged')}"
        )


def check_strategy_of(optimizer: torch.optim.Optimizer, strategy: type[Strategy]) -> None:
    """Refuse a strategy under which an optimizer cannot step."""
    name, under = type(optimizer).__name__, strategy.__name__
    needs_matrices = getattr(optimizer, "separates_hidden", False)
    flattens = not getattr(strategy, "steps_parameters", True)
    if flattens and (needs_matrices or switches_weights(optimizer)):
        needs = "needs whole matrices" if needs_matrices else "exchanges the weights of the model"
        raise ValueError(
            f"trainer.strategy: expected auto, ddp or fsdp2 for {name}, which {needs}, got {under},"
            " which flattens them: add configs/strategy/fsdp2.yaml"
        )
    if is_of_bitsandbytes(optimizer) and issubclass(strategy, ModelParallelStrategy):
        raise ValueError(
            f"model.optimizer: expected an optimizer that steps shards of {under}, got {name} of "
            "bitsandbytes: choose one of torchao.optim, or add configs/strategy/ddp.yaml"
        )


def check_schedule_of(optimizer: torch.optim.Optimizer, lr_schedule: LRSchedule) -> None:
    """Refuse a decay of the learning rate for an optimizer that averages weights in its place."""
    if switches_weights(optimizer) and lr_schedule.decay != "constant":
        raise ValueError(
            f"model.lr_schedule.decay: expected constant for {type(optimizer).__name__}, which "
            f"averages weights in place of a decay, got {lr_schedule.decay}: set constant; the "
            "warm-up stays"
        )
