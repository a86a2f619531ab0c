"""The learning-rate schedule."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import torch


@dataclass
class LRSchedule:
    """Learning-rate schedule: linear warm-up, then decay.

    Args:
        warmup: Length of the warm-up: optimizer steps if 1 or more, else a share of all steps.
        decay: Shape of the decay after the warm-up.
        final: Learning rate at the end, as a share of the peak; unused by ``constant``.
    """

    warmup: float = 0.03
    decay: Literal["cosine", "linear", "constant"] = "cosine"
    final: float = 0.0

    def __post_init__(self) -> None:
        if not (0 <= self.warmup < math.inf and 0 <= self.final <= 1):
            raise ValueError(
                "model.lr_schedule: expected warmup >= 0 and final in [0, 1], "
                f"got warmup={self.warmup}, final={self.final}: correct them"
            )

    def factor(self, step: int, total_steps: int) -> float:
        """Return the learning rate after some optimizer steps, as a share of its peak.

        >>> LRSchedule(warmup=10).factor(4, 100)
        0.5
        """
        warmup = self.warmup if self.warmup >= 1 else self.warmup * total_steps
        if step < warmup:
            return min((step + 1) / warmup, 1.0)
        progress = min((step - warmup) / max(total_steps - warmup, 1), 1.0)
        remaining = {
            "cosine": (1 + math.cos(math.pi * progress)) / 2,
            "linear": 1 - progress,
            "constant": 1.0,
        }[self.decay]
        return self.final + (1 - self.final) * remaining


def with_schedule(
    optimizer: torch.optim.Optimizer, factor: Callable[[int], float]
) -> dict[str, Any]:
    """Return an optimizer and its schedule, a factor of its peak, as Lightning expects them."""
    scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, factor)
    return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}
