"""Optimizer steps that are skipped: they change neither weights nor state."""

from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor

from lit_entrodrop.training.optim.adamw import AdamW


def skip_step_if(optimizer: torch.optim.Optimizer, condition: Tensor) -> None:
    """Let the coming step leave weights and momentum unchanged if a condition holds.

    A step with a zero gradient would still apply momentum and weight decay. The fused AdamW decides
    on the device; for other optimizers, the host reads the condition and removes the gradients.

    Args:
        optimizer: Optimizer that is about to step, as before each of its steps.
        condition: Scalar bool.

    >>> parameter = torch.nn.Parameter(torch.ones(1))
    >>> parameter.grad = torch.ones(1)
    >>> optimizer = AdamW([parameter], lr=0.1)
    >>> skip_step_if(optimizer, torch.tensor(True))
    >>> optimizer.step()
    >>> parameter.item()
    1.0
    """
    # DeepSpeed wraps the optimizer.
    inner = getattr(optimizer, "optimizer", optimizer)
    if isinstance(inner, AdamW):
        # As a gradient scaler does when a gradient is not finite.
        inner.found_inf = condition.float()
        return
    if inner not in _SKIPPING:
        _SKIPPING[inner] = _Skipping(inner, is_wrapped=inner is not optimizer)
    _SKIPPING[inner].skips = bool(condition)
    if condition:
        optimizer.zero_grad()


def took_step(optimizer: torch.optim.Optimizer) -> Tensor:
    """Return whether the last step changed weights, 1 or 0, on the device that knows it.

    >>> parameter = torch.nn.Parameter(torch.ones(1))
    >>> took_step(torch.optim.SGD([parameter]))
    tensor(0.)
    """
    skipped: Tensor | None = getattr(optimizer, "found_inf", None)
    if skipped is not None:
        return 1 - skipped
    parameters = [each for group in optimizer.param_groups for each in group["params"]]
    return torch.tensor(float(any(each.grad is not None for each in parameters)))


class _Skipping:
    """Hooks by which an optimizer leaves out a step."""

    def __init__(self, optimizer: torch.optim.Optimizer, is_wrapped: bool) -> None:
        self.skips = False
        self._is_wrapped = is_wrapped
        self._groups = _settings(optimizer)
        optimizer.register_step_pre_hook(self._before)
        optimizer.register_step_post_hook(self._after)

    def _before(self, optimizer: torch.optim.Optimizer, *_: Any) -> None:
        self._groups = _settings(optimizer)
        if self.skips:
            # DeepSpeed has set gradients for each of the parts in which it steps.
            optimizer.zero_grad()

    def _after(self, optimizer: torch.optim.Optimizer, *_: Any) -> None:
        if self.skips:
            # Some optimizers count their steps in the groups.
            for group, settings in zip(optimizer.param_groups, self._groups, strict=True):
                group.update(settings)
        self.skips = self.skips and self._is_wrapped


_SKIPPING: WeakKeyDictionary[torch.optim.Optimizer, _Skipping] = WeakKeyDictionary()


def _settings(optimizer: torch.optim.Optimizer) -> list[dict[str, Any]]:
    groups = optimizer.param_groups
    return [{name: group[name] for name in group if name != "params"} for group in groups]
