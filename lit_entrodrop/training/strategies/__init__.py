"""Strategies that shard: what is one shard unit, and how a model gets into its shards."""

import torch
from lightning.pytorch.strategies import Strategy
from torch import Tensor

from lit_entrodrop.training.optim import local_gradients
from lit_entrodrop.training.strategies.deepspeed import DeepSpeedStrategy
from lit_entrodrop.training.strategies.fsdp1 import FSDPStrategy
from lit_entrodrop.training.strategies.fsdp2 import FSDP2Strategy

__all__ = ["DeepSpeedStrategy", "FSDP2Strategy", "FSDPStrategy", "scale_gradients"]


def scale_gradients(strategy: Strategy, optimizer: torch.optim.Optimizer, factor: Tensor) -> None:
    """Multiply the gradients of the coming step, before they are clipped.

    Args:
        strategy: which may hold them in buffers of its own.
        optimizer: which would step on them.
        factor: a scalar.
    """
    if isinstance(strategy, DeepSpeedStrategy):
        return strategy.scale_gradients(factor)
    gradients = local_gradients(optimizer)
    if gradients:
        torch._foreach_mul_(gradients, factor.to(gradients[0].device))
