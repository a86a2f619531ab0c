"""Settings of the average of the weights."""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from lit_entrodrop.runs.checkpoints.averages import AVERAGE

DECAY, WINDOW, SWA_START = 0.999, 5, 0.75
# Settings that decide which tensors are in the state of the optimizer.
SAVED_STATE = ("kind", "window")
# After n snapshots, the decay of an EMA is at most n / (n + WARMUP).
WARMUP = 9


@dataclass(frozen=True)
class Average:
    """Average of the weights over training, which is evaluated beside the raw weights.

    Args:
        kind: Exponential moving average (`ema`); equal mean of all snapshots of the weights
            (`swa`); or equal mean of the latest snapshots (`lawa`).
        decay: Weight of the past in an `ema`, per snapshot; null for 0.999. At the start it is
            lower, so that the average does not stay at the initial weights.
        window: Number of snapshots in the mean of a `lawa`, all kept in memory; null for 5.
        start: Optimizer step from which snapshots are taken if 1 or more, else a share of all
            steps; null for 0.75 with `swa`, and 0 otherwise.
        every: Number of optimizer steps between two snapshots; null for 1 with `ema`, and for an
            epoch otherwise.

    Raises:
        ValueError: If a setting is out of range, or of another kind.
    """

    kind: Literal["ema", "swa", "lawa"] = "ema"
    decay: float | None = None
    window: int | None = None
    start: float | None = None
    every: int | None = None

    def __post_init__(self) -> None:
        if self.kind not in ("ema", "swa", "lawa"):
            raise ValueError(f"model.average.kind: expected ema, swa or lawa, got {self.kind!r}")
        for name, owner in (("decay", "ema"), ("window", "lawa")):
            if getattr(self, name) is not None and self.kind != owner:
                raise ValueError(
                    f"model.average.{name}: expected null, because only {owner} has one, got "
                    f"{getattr(self, name)} with kind {self.kind}: remove it, or set kind {owner}"
                )
        if not (
            (self.decay is None or 0 <= self.decay < 1)
            and (self.window is None or self.window >= 1)
            and (self.start is None or 0 <= self.start < math.inf)
            and (self.every is None or self.every >= 1)
        ):
            raise ValueError(
                "model.average: expected decay in [0, 1), window >= 1, start >= 0 and every >= 1, "
                f"got {self}: correct it"
            )

    @property
    def stored_snapshots(self) -> int:
        """Number of snapshots that are stored beside the average."""
        return (self.window or WINDOW) if self.kind == "lawa" else 0

    @property
    def highest_decay(self) -> float:
        """Decay of an `ema` after its start."""
        return DECAY if self.decay is None else self.decay

    def bytes_per_weight(self, stored: int) -> int:
        """Return the bytes of the average per weight, for weights of ``stored`` bytes.

        >>> Average().bytes_per_weight(4), Average("lawa", window=3).bytes_per_weight(2)
        (4, 10)
        """
        return torch.float32.itemsize + self.stored_snapshots * stored

    def first_step(self, total_steps: int) -> float:
        """Return the optimizer step from which snapshots are taken.

        >>> Average("swa").first_step(100), Average(start=20).first_step(100)
        (75.0, 20)
        """
        start = self.start
        if start is None:
            start = SWA_START if self.kind == "swa" else 0.0
        return start if start >= 1 else start * total_steps

    def interval(self, per_epoch: int) -> int:
        """Return the number of optimizer steps between two snapshots."""
        return self.every or (1 if self.kind == "ema" else per_epoch)

    def is_due(self, step: int, total_steps: int, per_epoch: int) -> bool:
        """Return whether a snapshot is taken after an optimizer step, counted from 1."""
        return step >= self.first_step(total_steps) and step % self.interval(per_epoch) == 0

    def coefficient(self, count: Tensor) -> Tensor:
        """Return the coefficient of the next snapshot in an `ema` or `swa`.

        Args:
            count: Number of snapshots taken before, a scalar.

        >>> [round(Average("swa").coefficient(torch.tensor(n)).item(), 3) for n in (0, 1, 2)]
        [1.0, 0.5, 0.333]
        >>> ema = Average(decay=0.9)
        >>> [round(ema.coefficient(torch.tensor(n)).item(), 3) for n in (0, 1, 99)]
        [1.0, 0.9, 0.1]
        """
        if self.kind == "swa":
            return 1 / (count + 1)
        return 1 - torch.clamp(count / (count + WARMUP), max=self.highest_decay)


def check_same_average(checkpoint: Mapping[str, Any], average: Average | None) -> None:
    """Refuse to resume from a checkpoint whose optimizer has another average.

    Raises:
        ValueError: If only one of them has an average, or kind or window differ.
    """
    saved, own = checkpoint.get(AVERAGE), None if average is None else asdict(average)
    described = [each and {name: each[name] for name in SAVED_STATE} for each in (saved, own)]
    if described[0] != described[1]:
        raise ValueError(
            f"model.average: expected the average of the checkpoint, {described[0] or 'none'}, got "
            f"{described[1] or 'none'}: resume with the same kind and window, or start a new run "
            "from the exported model"
        )
