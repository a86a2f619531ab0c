"""Rule that decides whether a model overfits, from its validation losses alone."""

from dataclasses import dataclass
from functools import cache
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from lit_entrodrop.evaluation.diagnosis.epoch_drops import MAD
from lit_entrodrop.evaluation.statistics import CONFIDENCE, SEED

CurveKind = Literal["overfits", "diverges", "rises", "holds", "unknown"]
Floats = NDArray[np.float64]

# Smallest relative rise above the lowest loss that matters in practice.
LEAST_RISE = 0.01
# More evaluations are averaged in groups.
MOST_EVALUATIONS = 20
# With fewer evaluations, a rise that cannot be tested is reported as such.
FEW_EVALUATIONS = 6
ORDER, VARIANCE = 3, 20  # of differences; variance of the third difference of independent noise
# Correlation of the scatter of successive evaluations that the test allows for.
CORRELATION = 0.25
SIMULATIONS = 9999
RULE = (
    f"The model overfits if its validation loss is now at least {LEAST_RISE:.0%} above its "
    f"lowest value, with {CONFIDENCE:.0%} confidence, and its training loss has not risen by half "
    "as much. "
    "The rise is divided by the scatter of the evaluations: the median absolute third difference "
    "of successive losses, which a smooth curve leaves near zero. The p value is the share of "
    f"{SIMULATIONS} simulated flat curves with as many evaluations whose ratio is as large, with "
    f"Gaussian scatter that is correlated by {CORRELATION} between neighbors. Above "
    f"{MOST_EVALUATIONS} evaluations, neighbors are averaged. If the training loss rises too, "
    "training diverges. This covers the scatter of training, not the choice of the validation "
    "text, which needs the loss of each document."
)


@dataclass(frozen=True)
class CurveVerdict:
    """Verdict on a curve of validation losses.

    Attributes:
        kind: ``overfits``; ``diverges`` if the training loss rises too; ``rises`` if the loss rises
            but the evaluations are too few to test it; ``holds`` if no rise is shown; ``unknown``
            with fewer than two evaluations.
        best: Index of the lowest loss.
        rise: Last loss minus lowest loss.
        p_value: Probability of such a rise in a flat curve; None with fewer than four evaluations.
        scatter: Standard deviation of the scatter of a single evaluation; None if unknown.
        training_change: Change of the training loss since the best evaluation; None if unknown.
    """

    kind: CurveKind
    best: int
    rise: float
    p_value: float | None = None
    scatter: float | None = None
    training_change: float | None = None

    @property
    def onset(self) -> int | None:
        """Index of the first evaluation after the lowest loss; None unless the loss rises."""
        return self.best + 1 if self.kind in ("overfits", "rises") else None


def judge_curve(losses: ArrayLike, training: ArrayLike | None = None) -> CurveVerdict:
    """Apply the rule to the losses of successive evaluations.

    Args:
        losses: Validation losses, ``[E]``, finite.
        training: Training loss around each evaluation, ``[E]``; NaN or None where unknown.

    >>> judge_curve([2.6, 2.1, 1.95, 1.9, 1.92, 1.97, 2.05, 2.12]).kind
    'overfits'
    >>> judge_curve([2.0, 1.8, 2.2]).kind, judge_curve([2.0, 1.8, 1.7, 1.65]).kind
    ('rises', 'holds')
    """
    values = np.asarray(losses, float)
    best = int(values.argmin())
    if values[best] == values[-1]:  # the last of equal ones
        best = len(values) - 1
    rise = float(values[-1] - values[best])
    change = None
    if training is not None and np.isfinite(ends := np.asarray(training, float)[[best, -1]]).all():
        change = float(ends[1] - ends[0])
    if len(values) < 2:
        return CurveVerdict("unknown", best, rise)
    p_value, scatter = chance_of_rise(values), scatter_of(values)
    kind: CurveKind = "holds"
    shown = p_value is not None and p_value < 1 - CONFIDENCE
    if rise >= LEAST_RISE * abs(values[best]) and (shown or len(values) < FEW_EVALUATIONS):
        kind = "overfits" if shown else "rises"
        if change is not None and change > rise / 2:
            kind = "diverges"
    return CurveVerdict(kind, best, rise, p_value, scatter, change)


def scatter_of(losses: Floats) -> float | None:
    """Estimate the standard deviation of the scatter of an evaluation around a smooth curve.

    None with fewer than four evaluations.

    >>> scatter_of(np.array([3.0, 2.0, 1.5, 1.5, 2.0])), scatter_of(np.ones(3))
    (0.0, None)
    """
    return float(_scatter(losses)) if len(losses) > ORDER else None


def chance_of_rise(losses: Floats) -> float | None:
    """Return the probability that a flat curve with the same scatter rises as much at its end.

    None with fewer than four evaluations.

    >>> chance_of_rise(np.array([2.0, 1.8, 1.7, 1.65, 1.6]))
    1.0
    """
    if len(losses) <= ORDER:
        return None
    groups = np.array_split(losses, min(len(losses), MOST_EVALUATIONS))
    means = np.array([group.mean() for group in groups])
    if means[-1] <= means.min():
        return 1.0
    simulated = _simulated(len(means))
    larger = len(simulated) - np.searchsorted(simulated, _ratio(means))
    return float((larger + 1) / (len(simulated) + 1))


def correlated_noise(
    random: np.random.Generator, shape: tuple[int, int], correlation: float
) -> Floats:
    """Return standard normal curves, ``[N, E]``, whose neighboring values are correlated.

    Args:
        random: Generator of random numbers.
        shape: Number of curves, N, and of values in each, E.
        correlation: Correlation of neighbors.

    >>> noise = correlated_noise(np.random.default_rng(0), (10_000, 2), 0.5)
    >>> round(float(np.corrcoef(noise.T)[0, 1]), 1)
    0.5
    """
    noise = random.normal(size=shape)
    for place in range(1, shape[1]):
        noise[:, place] *= (1 - correlation**2) ** 0.5
        noise[:, place] += correlation * noise[:, place - 1]
    return noise


@cache
def _simulated(evaluations: int) -> Floats:
    """Return the sorted ratios of rise and scatter of flat curves."""
    random = np.random.default_rng(SEED)
    return np.sort(_ratio(correlated_noise(random, (SIMULATIONS, evaluations), CORRELATION)))


def _ratio(losses: Floats) -> Floats:
    rise: Floats = losses[..., -1] - losses.min(-1)
    with np.errstate(divide="ignore"):
        return rise / _scatter(losses)


def _scatter(losses: Floats) -> Floats:
    differences = np.abs(np.diff(losses, ORDER, axis=-1))
    found: Floats = np.median(differences, -1) / (MAD * VARIANCE**0.5)
    return found
