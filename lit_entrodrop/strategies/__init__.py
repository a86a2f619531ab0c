"""Strategies that shard: what is one shard unit, and how a model gets into its shards."""

import torch
from lightning.pytorch.strategies import Strategy
from torch import Tensor

from lit_entrodrop.strategies.deepspeed import DeepSpeedStrategy
from lit_entrodrop.strategies.fsdp1 import FSDPStrategy
from lit_entrodrop.strategies.fsdp2 import HALF, FSDP2Strategy

__all__ = ["HALF", "DeepSpeedStrategy", "FSDP2Strategy", "FSDPStrategy", "scale_gradients"]


def scale_gradients(strategy: Strategy, optimizer: torch.optim.Optimizer, factor: Tensor) -> None:
    """Multiply the gradients of the coming step, before they are clipped.

    Args:
        strategy: which may hold them in buffers of its own.
        optimizer: which would step on them.
        factor: a scalar.
    """
    if isinstance(strategy, DeepSpeedStrategy):
        return strategy.scale_gradients(factor)
    parameters = (p for group in optimizer.param_groups for p in group["params"])
    gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
    torch._foreach_mul_(gradients, factor)
