"""AdamW in its fused form."""

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
