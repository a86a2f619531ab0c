"""A curriculum that follows validation instead of progress."""

import math
from collections.abc import Mapping

from regularizers.curricula import Curriculum


class Adaptive(Curriculum):
    """A strength that rises while a validation metric is above a target, and falls below it.

    After each evaluation, including the one before the first step:

        s ← clip(s + step · sign(metric − target), min, max)

    The strength starts at ``min``. It does not change if the metric equals the target or is NaN.
    The default metric is the generalization gap of low-entropy tokens: their loss on validation
    text minus their loss on training text, in nats. EntroDrop drops these tokens, because models
    overfit to them first.

    Args:
        max: Largest strength.
        min: Smallest strength, and the initial one.
        step: Change of the strength per evaluation.
        target: Value of the metric above which the strength rises.
        metric: Name of a metric, as in ``metrics.csv``.
        warmup: Fraction of all steps at the start with strength 0.

    Raises:
        ValueError: If a setting is out of range.

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
        """Return the strength after the last evaluation; ``progress`` has no effect."""
        return self._strength

    def at_most(self, progress: float) -> float:
        """Return ``max``, or 0 during the warm-up."""
        return 0.0 if progress < self.warmup else self.max

    def on_evaluation(self, metrics: Mapping[str, float]) -> None:
        """Move the strength by one step.

        Raises:
            ValueError: If the evaluation does not report the metric.
        """
        if self.metric not in metrics:
            raise ValueError(
                f"Adaptive metric: expected a metric of the evaluation, got {self.metric!r}: "
                f"use one of {', '.join(sorted(metrics))}"
            )
        excess = metrics[self.metric] - self.target
        if excess > 0:
            self._strength = min(self._strength + self.step, self.max)
        elif excess < 0:
            self._strength = max(self._strength - self.step, self.min)
