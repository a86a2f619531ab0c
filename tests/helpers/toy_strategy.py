"""A strategy as a user would add it: one file, named in a config by its class path."""

from collections.abc import Callable
from typing import Any

import torch
from lightning.pytorch.strategies import SingleDeviceStrategy
from torch import Tensor

from lit_entrodrop.model.building import LMConfig
from lit_entrodrop.model.causal_lm import CausalLM
from lit_entrodrop.training.strategies import StrategyHooks

CALLED: list[str] = []


class ToyStrategy(SingleDeviceStrategy, StrategyHooks):
    """Records the hooks that a run calls, and clips by half the norm."""

    steps_parameters = False

    def __init__(self) -> None:
        super().__init__(device="cpu")

    def build(self, lm: LMConfig, build_whole: Callable[[], CausalLM]) -> CausalLM:
        CALLED.append("build")
        return super().build(lm, build_whole)

    def prepare_frozen(self, causal_lm: CausalLM, device: torch.device) -> CausalLM:
        CALLED.append("prepare_frozen")
        return super().prepare_frozen(causal_lm, device)

    def scale_gradients(self, optimizer: torch.optim.Optimizer, factor: Tensor) -> None:
        CALLED.append("scale_gradients")
        super().scale_gradients(optimizer, factor)

    def clip_gradients(self, module: Any, optimizer: Any, value: float, algorithm: Any) -> None:
        CALLED.append("clip_gradients")
        parameters = [each for group in optimizer.param_groups for each in group["params"]]
        self.norm = torch.nn.utils.clip_grad_norm_(parameters, value / 2)
