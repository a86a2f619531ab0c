"""Curricula: the strength of a regularizer as a function of training progress.

Progress is the fraction of all optimizer steps that are done, in [0, 1]. The only state of a
curriculum is what it derives from evaluations, so a resumed run continues exactly.
"""

import math
from abc import ABC, abstractmethod
from bisect import bisect_right
from collections.abc import Mapping, Sequence
from itertools import pairwise


class Curriculum(ABC):
    """A strength over training: a warm-up, a ramp, and a hold.

    Subclasses override :meth:`ramp`. A subclass that follows validation also overrides
    :meth:`on_evaluation` and :meth:`at_most`; one with jumps also overrides :meth:`probes`.

    Args:
        warmup: Fraction of all steps at the start with strength 0, in [0, 1).
        hold: Fraction of all steps at the end with the final strength, in [0, 1).

    Raises:
        ValueError: If warm-up and hold leave no steps for the ramp.
    """

    def __init__(self, warmup: float = 0.0, hold: float = 0.0) -> None:
        if not (warmup >= 0 and hold >= 0 and 1 - warmup - hold > 0):
            raise ValueError(
                f"{type(self).__name__}: expected warmup >= 0, hold >= 0 and warmup + hold < 1 "
                f"(fractions of all steps), got warmup={warmup}, hold={hold}"
            )
        self.warmup = warmup
        self.hold = hold

    def __call__(self, progress: float) -> float:
        """Return the strength at ``progress`` in [0, 1]."""
        if progress < self.warmup:
            return 0.0
        return self.ramp(min((progress - self.warmup) / (1 - self.warmup - self.hold), 1.0))

    @abstractmethod
    def ramp(self, progress: float) -> float:
        """Return the strength at ``progress`` in [0, 1] of the ramp."""

    def at_most(self, progress: float) -> float:
        """Return the largest possible strength at ``progress`` in [0, 1], over all evaluations."""
        return self(progress)

    def probes(self) -> list[float]:
        """Return the values of progress at which to look for extreme strengths."""
        return [percent / 100 for percent in range(101)]

    def on_evaluation(self, metrics: Mapping[str, float]) -> None:  # noqa: B027
        """Adapt to an evaluation; a resumed run repeats all of them, so no other state is allowed.

        Args:
            metrics: Metrics by name, such as ``val/loss`` or ``gap/loss_low_entropy``.
        """


class Constant(Curriculum):
    """A constant strength.

    Args:
        value: Strength.
        warmup: Fraction of all steps at the start with strength 0.

    >>> Constant(0.3)(0.9)
    0.3
    """

    def __init__(self, value: float, warmup: float = 0.0) -> None:
        super().__init__(warmup)
        self.value = _strength("Constant value", value)

    def ramp(self, progress: float) -> float:
        """Return the strength; ``progress`` has no effect."""
        return self.value


class Linear(Curriculum):
    """A linear ramp: ``start + (end − start) · p``.

    Args:
        end: Strength at the end.
        start: Strength at the start of the ramp.
        warmup: Fraction of all steps at the start with strength 0.
        hold: Fraction of all steps at the end with strength ``end``.

    >>> Linear(end=0.5)(0.5)
    0.25
    """

    def __init__(
        self, end: float, start: float = 0.0, warmup: float = 0.0, hold: float = 0.0
    ) -> None:
        super().__init__(warmup, hold)
        self.start = _strength("Linear start", start)
        self.end = _strength("Linear end", end)

    def ramp(self, progress: float) -> float:
        """Return the strength at ``progress`` of the ramp."""
        return self.start + (self.end - self.start) * progress


class Cosine(Curriculum):
    """Half a cosine wave: ``start + (end − start) · (1 − cos πp) / 2``.

    Args:
        end: Strength at the end.
        start: Strength at the start of the ramp.
        warmup: Fraction of all steps at the start with strength 0.
        hold: Fraction of all steps at the end with strength ``end``.

    >>> round(Cosine(end=0.5)(0.5), 6)
    0.25
    """

    def __init__(
        self, end: float, start: float = 0.0, warmup: float = 0.0, hold: float = 0.0
    ) -> None:
        super().__init__(warmup, hold)
        self.start = _strength("Cosine start", start)
        self.end = _strength("Cosine end", end)

    def ramp(self, progress: float) -> float:
        """Return the strength at ``progress`` of the ramp."""
        return self.start + (self.end - self.start) * (1 - math.cos(math.pi * progress)) / 2


class Step(Curriculum):
    """A step function: ``values[i]`` from ``milestones[i-1]`` on.

    Args:
        values: Strengths, one more than milestones.
        milestones: Increasing values of progress in (0, 1) at which the next strength starts.
        warmup: Fraction of all steps at the start with strength 0.
        hold: Fraction of all steps at the end with the last value.

    Raises:
        ValueError: If the numbers of values and milestones do not match, or milestones do not
            increase.

    >>> Step(values=[0.0, 0.2, 0.4], milestones=[0.3, 0.6])(0.5)
    0.2
    """

    def __init__(
        self,
        values: Sequence[float],
        milestones: Sequence[float],
        warmup: float = 0.0,
        hold: float = 0.0,
    ) -> None:
        super().__init__(warmup, hold)
        bounds = [0.0, *milestones, 1.0]
        if not all(left < right for left, right in pairwise(bounds)):
            raise ValueError(
                f"Step milestones: expected increasing numbers in (0, 1), got {list(milestones)}"
            )
        if len(values) != len(milestones) + 1:
            raise ValueError(
                f"Step values: expected one more than milestones ({len(milestones) + 1}), "
                f"got {len(values)}: {list(values)}"
            )
        self.values = [_strength("Step value", value) for value in values]
        self.milestones = list(milestones)

    def ramp(self, progress: float) -> float:
        """Return the strength at ``progress`` of the ramp."""
        return self.values[bisect_right(self.milestones, progress)]

    def probes(self) -> list[float]:
        """Return a value within the warm-up, and one between every two milestones.

        >>> Step(values=[0.0, 0.2], milestones=[0.5]).probes()
        [0.0, 0.25, 0.75]
        """
        length = 1 - self.warmup - self.hold
        middles = [(left + right) / 2 for left, right in pairwise([0.0, *self.milestones, 1.0])]
        return [0.0, *(self.warmup + length * middle for middle in middles)]


class Sigmoid(Curriculum):
    """A logistic curve: ``max / (1 + exp(−steepness · (p − midpoint)))``.

    Third parties describe EntroDrop's schedule (arXiv 2512.23422) as sigmoidal; this project chose
    the constants. At the default steepness the curve starts at 0.7 % of ``max``; ``rescale``
    stretches it to run from exactly 0 to exactly ``max``.

    Args:
        max: Strength that the curve approaches.
        midpoint: Progress at which half of ``max`` is reached, in [0, 1].
        steepness: Slope factor, above 0.
        rescale: Whether to start at exactly 0 and end at exactly ``max``.
        warmup: Fraction of all steps at the start with strength 0.
        hold: Fraction of all steps at the end with the final strength.

    Raises:
        ValueError: If a setting is out of range.

    >>> Sigmoid(max=0.5)(0.5)
    0.25
    """

    def __init__(
        self,
        max: float = 0.5,
        midpoint: float = 0.5,
        steepness: float = 10.0,
        rescale: bool = False,
        warmup: float = 0.0,
        hold: float = 0.0,
    ) -> None:
        super().__init__(warmup, hold)
        if not 0 <= midpoint <= 1:
            raise ValueError(f"Sigmoid midpoint: expected a progress in [0, 1], got {midpoint}")
        if not 0 < steepness < math.inf:
            raise ValueError(f"Sigmoid steepness: expected a number above 0, got {steepness}")
        self.max = _strength("Sigmoid max", max)
        self.midpoint = midpoint
        self.steepness = steepness
        self.rescale = rescale

    def ramp(self, progress: float) -> float:
        """Return the strength at ``progress`` of the ramp."""
        if not self.rescale:
            return self.max * (1 + self._tanh(progress)) / 2
        low, high = self._tanh(0.0), self._tanh(1.0)
        return self.max * ((self._tanh(progress) - low) / (high - low))

    def _tanh(self, progress: float) -> float:
        # tanh cannot overflow, however steep the curve.
        return math.tanh(self.steepness * (progress - self.midpoint) / 2)


def as_curriculum(strength: Curriculum | float) -> Curriculum:
    """Return a curriculum unchanged, and a number as a :class:`Constant` curriculum.

    >>> as_curriculum(0.2)(0.7)
    0.2
    """
    return strength if isinstance(strength, Curriculum) else Constant(strength)


def require_probability(name: str, curriculum: Curriculum) -> None:
    """Check that a curriculum stays in [0, 1].

    Args:
        name: Name of the curriculum, for the error message.
        curriculum: Curriculum to check, at its :meth:`~Curriculum.probes`: by default 101 evenly
            spaced values of progress.

    Raises:
        ValueError: If a strength is outside [0, 1].

    >>> require_probability("drop probability", Constant(0.5))
    """
    for progress in curriculum.probes():
        if not 0 <= (strength := curriculum.at_most(progress)) <= 1:
            raise ValueError(
                f"{name}: expected a probability in [0, 1] throughout training, "
                f"got {strength:g} at {100 * progress:g} % of the steps"
            )


def _strength(name: str, value: float) -> float:
    if not 0 <= value < math.inf:
        raise ValueError(f"{name}: expected a finite strength >= 0, got {value}")
    return float(value)
