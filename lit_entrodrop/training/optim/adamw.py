"""AdamW in its fused form, and steps that change nothing."""

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor


class AdamW(torch.optim.AdamW):
    """AdamW in its fused form.

    Args:
        params: Parameters or parameter groups.
        lr: Peak learning rate.
        betas: Decay rates of the two moments.
        eps: Number added to the denominator.
        weight_decay: Decoupled weight decay per unit of learning rate; applied to matrices only.
    """

    found_inf: Tensor | None = None

    def __init__(
        self,
        params: Iterable[Any],
        lr: float = 2e-5,
        betas: tuple[float, float] = (0.9, 0.95),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
    ) -> None:
        super().__init__(params, lr, betas, eps, weight_decay, fused=True)
        # With fp16, torch would unscale gradients within the step, after Lightning clips them.
        self._step_supports_amp_scaling = False


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


def skip_step_if(optimizer: torch.optim.Optimizer, condition: Tensor) -> None:
    """Let the coming step leave weights and momentum unchanged if a condition holds.

    A step with a zero gradient would still apply momentum and weight decay. The fused AdamW decides
    on the device; for other optimizers, the host reads the condition and removes the gradients. If
    DeepSpeed holds them, the host sets the learning rate to zero until its schedule sets the next
    one; then the momentum decays.

    Args:
        optimizer: Optimizer that is about to step.
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
    elif condition and inner is optimizer:
        optimizer.zero_grad()
    elif condition:
        for group in optimizer.param_groups:
            group["lr"] = 0.0
