"""The hooks of a training run into its strategy."""

from collections.abc import Callable
from typing import ClassVar

import lightning as L
import torch
from lightning.pytorch.strategies import Strategy
from torch import Tensor

from lit_entrodrop.model.causal_lm import CausalLM
from lit_entrodrop.model.config import LMConfig
from lit_entrodrop.training.optim import local_gradients


class StrategyHooks:
    """Hooks of a training run into its strategy, with defaults for a whole model on each device.

    A strategy that shards inherits from a strategy of Lightning and from this class, and overrides
    the hooks that differ.
    """

    #: Whether the optimizer steps the parameters themselves, with their gradients and its state.
    steps_parameters: ClassVar[bool] = True

    def check_lm(self, lm: LMConfig) -> None:
        """Refuse a model that the strategy cannot train; by default none.

        Raises:
            ValueError: If it cannot; the message names the setting and the remedy.
        """

    def build(self, lm: LMConfig, build_whole: Callable[[], CausalLM]) -> CausalLM:
        """Build the model that is trained.

        Args:
            lm: Configuration of the model.
            build_whole: Function that builds the whole model in the memory of this rank.

        Returns:
            The model, or this rank's shard of it.
        """
        return build_whole()

    def prepare_frozen(self, causal_lm: CausalLM, device: torch.device) -> CausalLM:
        """Return a frozen model that :meth:`build` built, ready for forward passes."""
        return causal_lm.to(device)

    def scale_gradients(self, optimizer: torch.optim.Optimizer, factor: Tensor) -> None:
        """Multiply the gradients of the coming step, before they are clipped.

        Args:
            optimizer: Optimizer that is about to step.
            factor: Scalar tensor.
        """
        if gradients := local_gradients(optimizer):
            torch._foreach_mul_(gradients, factor.to(gradients[0].device))

    def clip_gradients(
        self,
        module: L.LightningModule,
        optimizer: torch.optim.Optimizer,
        value: float,
        algorithm: str | None,
    ) -> None:
        """Clip the gradients of the coming step.

        Args:
            module: Module that is trained.
            optimizer: Optimizer that is about to step.
            value: ``trainer.gradient_clip_val``; 0 for no clipping.
            algorithm: ``trainer.gradient_clip_algorithm``: norm, value, or None for norm.
        """
        module.clip_gradients(optimizer, value, algorithm)


def refuse_quantized(lm: LMConfig, strategy: str) -> None:
    """Refuse 4-bit weights under a strategy that shards."""
    if lm.quantize is not None:
        raise ValueError(
            f"model.lm.quantize: expected null under {strategy}, which cannot shard 4-bit weights "
            "or cast them, got 4 bits: set trainer.strategy to ddp, where each device has the "
            "4-bit model, or shard the adapters of a model in bfloat16"
        )


def hooks_of(strategy: Strategy) -> StrategyHooks:
    """Return the hooks of a strategy; the defaults for a strategy without hooks, such as DDP."""
    return strategy if isinstance(strategy, StrategyHooks) else StrategyHooks()
