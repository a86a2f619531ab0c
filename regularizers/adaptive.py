"""A curriculum that is driven by validation rather than by progress."""

import math
from collections.abc import Mapping

from regularizers.curricula import Curriculum


class Adaptive(Curriculum):
    """A strength that rises while a metric of validation is above its target, and falls otherwise.

    After each evaluation, the one before the first step included:

        s ← clip(s + step · sign(metric − target), min, max)

    with ``min`` at the start, and no change where the metric is the target or NaN. By default the
    metric is the generalization gap of the tokens of low entropy, by how many nats their loss on
    held-out text exceeds that on training text: they are the ones that EntroDrop drops, as models
    overfit to them first.

    Args:
        max: the largest strength.
        min: the smallest strength, and the first.
        step: by how much an evaluation changes the strength.
        target: value of the metric above which the strength rises.
        metric: name of a metric, as in ``metrics.csv``.
        warmup: share of all steps at the start with strength 0.

    Raises:
        ValueError: if a setting is out of range.

    >>> curriculum = Adaptive(step=0.1)
    >>> for gap in (0.0, 0.3, 0.4):
    ...     curriculum.on_evaluation({"gap/loss_low_entropy": gap})
    >>> curriculum(0.5)
    0.2
    """

    def __init__(
        self,
        max: float = 0.5,
        min: float = 0.0,
        step: float = 0.1,
        target: float = 0.1,
        metric: str = "gap/loss_low_entropy",
        warmup: float = 0.0,
    ) -> None:
        super().__init__(warmup)
        if not 0 <= min <= max < math.inf:
            raise ValueError(f"Adaptive: expected 0 <= min <= max, got min={min}, max={max}")
        if not 0 < step < math.inf:
            raise ValueError(f"Adaptive step: expected a number above 0, got {step}")
        if not math.isfinite(target):
            raise ValueError(f"Adaptive target: expected a finite number, got {target}")
        self.max = float(max)
        self.min = float(min)
        self.step = step
        self.target = target
        self.metric = metric
        self._strength = self.min

    def ramp(self, progress: float) -> float:
        """Return the strength after the last evaluation; ``progress`` does not matter."""
        return self._strength

    def at_most(self, progress: float) -> float:
        """Return ``max``, or 0 within the warm-up."""
        return 0.0 if progress < self.warmup else self.max

    def on_evaluation(self, metrics: Mapping[str, float]) -> None:
        """Move the strength by a step.

        Raises:
            ValueError: if the evaluation does not tell the metric.
        """
        if self.metric not in metrics:
            raise ValueError(
                f"Adaptive metric: expected one that the evaluation tells, got {self.metric!r}: "
                f"take one of {', '.join(sorted(metrics))}"
            )
        excess = metrics[self.metric] - self.target
        if excess > 0:
            self._strength = min(self._strength + self.step, self.max)
        elif excess < 0:
            self._strength = max(self._strength - self.step, self.min)
