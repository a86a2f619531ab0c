r"""Unique-data multiplier: how many times the text a method of training is worth.

The baseline is trained on nested parts of the text, the rungs of a ladder, which gives its loss as
a function of the number of tokens. A method that reaches on $N$ tokens the loss of the baseline on
$N'$ tokens is worth $N' / N$ times the text (arXiv 2606.16246). Between two rungs, the loss is
linear in $\log N$. Beyond the rungs nothing is extrapolated.
"""

from dataclasses import dataclass
from math import inf

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import stats

from lit_entrodrop.evaluation.statistics import (
    BATCH_ELEMENTS,
    CONFIDENCE,
    OVER_DOCUMENTS,
    OVER_SEEDS,
    RESAMPLES,
    SEED,
    expanded_confidence,
)

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Multiplier:
    """A unique-data multiplier and its confidence interval.

    Args:
        value: Multiplier. It is 0 if the loss is above that of the lowest rung, and infinite if it
            is below that of the highest: the multiplier is then less or more than the rungs show.
        low: Lower end of the interval, 0 if it is below the lowest rung; None without an interval.
        high: Upper end of the interval, infinite if it is above the highest rung.
        method: Method of the interval; None without an interval.
        samples: Number of seeds or documents.
    """

    value: float
    low: float | None = None
    high: float | None = None
    method: str | None = None
    samples: int = 1


def multiplier_over_seeds(
    losses: ArrayLike, curves: ArrayLike, tokens: ArrayLike, at: int
) -> Multiplier:
    """Estimate a multiplier from a loss and a curve for each seed: Student's t of its logarithm.

    If the loss of some seeds is beyond the curve, the multiplier is that of the mean loss on the
    mean curve, without an interval. Without a spread, such as with one seed, there is none either.

    Args:
        losses: Loss of the method at each seed, [S].
        curves: Loss of the baseline at each seed and rung, [S, R].
        tokens: Number of training tokens of each rung, increasing, [R].
        at: Index of the rung on which the method was trained.

    >>> curves = [[4.0, 3.0, 2.0], [4.1, 3.1, 2.1]]
    >>> found = multiplier_over_seeds([2.5, 2.7], curves, [100, 200, 400], at=1)
    >>> round(found.value, 3), found.high
    (1.366, inf)
    """
    own, of_baseline = np.asarray(losses, float), np.asarray(curves, float)
    logs = equivalent_log_tokens(own, of_baseline, tokens) - np.log(np.asarray(tokens)[at])
    count = len(own)
    if not np.isfinite(logs).all() or np.ptp(logs) == 0:
        mean = equivalent_log_tokens(own.mean(), of_baseline.mean(0), tokens)
        return Multiplier(float(np.exp(mean - np.log(np.asarray(tokens)[at]))), samples=count)
    half = stats.t.ppf((1 + CONFIDENCE) / 2, count - 1) * logs.std(ddof=1) / np.sqrt(count)
    ends = np.array([logs.mean() - half, logs.mean() + half])
    low, high = _within(ends, tokens, at)
    return Multiplier(float(np.exp(logs.mean())), low, high, OVER_SEEDS, count)


def multiplier_over_documents(
    nll: ArrayLike,
    curve: ArrayLike,
    counts: ArrayLike,
    tokens: ArrayLike,
    at: int,
    resamples: int = RESAMPLES,
) -> Multiplier:
    """Estimate a multiplier from one seed, generalized to similar documents, by the bootstrap.

    The same documents are drawn for the method and for all rungs. The interval is about these
    trained models: other seeds may give other multipliers.

    Args:
        nll: Summed loss of each document under the method, nats, [D], D ≥ 2.
        curve: Summed loss of the same documents under the baseline of each rung, [R, D].
        counts: Number of counted tokens of each document, [D].
        tokens: Number of training tokens of each rung, increasing, [R].
        at: Index of the rung on which the method was trained.
        resamples: Number of draws.
    """
    sums = np.vstack([np.asarray(nll, float), np.asarray(curve, float), counts]).T
    documents = len(sums)
    generator = np.random.default_rng(SEED)
    shares = np.full(documents, 1 / documents)
    batch = max(1, BATCH_ELEMENTS // documents)
    drawn = np.vstack(
        [
            generator.multinomial(documents, shares, min(batch, resamples - first)) @ sums
            for first in range(0, resamples, batch)
        ]
    )

    def logs(sums: Array) -> Array:
        losses = sums[..., :-1] / sums[..., -1:]
        found = equivalent_log_tokens(losses[..., 0], losses[..., 1:], tokens)
        relative: Array = found - np.log(np.asarray(tokens)[at])
        return relative

    value = float(np.exp(logs(sums.sum(0))))
    if value in (0, inf):
        return Multiplier(value, samples=documents)
    outside = (1 - expanded_confidence(documents)) / 2
    # A mean of two draws could be one of two infinities.
    ends = np.quantile(logs(drawn), [outside, 1 - outside], method="nearest")
    low, high = _within(ends, tokens, at)
    return Multiplier(value, low, high, OVER_DOCUMENTS, documents)


def equivalent_log_tokens(losses: ArrayLike, curves: ArrayLike, tokens: ArrayLike) -> Array:
    """Return the logarithm of the number of tokens at which a baseline reaches given losses.

    Where more text has not lowered the loss of the baseline, its losses are replaced by the closest
    ones that do not rise (isotonic regression). On a level part, the middle of its ends counts.

    Args:
        losses: Losses to look up, [...].
        curves: Loss of the baseline at each rung, [..., R].
        tokens: Number of training tokens of each rung, increasing, [R].

    Returns:
        Logarithms, [...]; infinite below the loss of the last rung, minus infinity above the first.

    >>> np.exp(equivalent_log_tokens([2.5, 4.5, 1.5], [4.0, 3.0, 2.0], [100, 200, 400])).round()
    array([283.,   0.,  inf])
    """
    loss = np.asarray(losses, float)[..., None]
    curve, log_tokens = not_rising(curves), np.log(np.asarray(tokens, float))
    above, below = curve[..., :-1], curve[..., 1:]
    inside = (above >= loss) & (loss >= below)
    with np.errstate(invalid="ignore", divide="ignore"):
        share = (above - loss) / (above - below)
    places = log_tokens[:-1] + share * np.diff(log_tokens)
    level = above == below
    first = np.where(level, log_tokens[:-1], places)
    last = np.where(level, log_tokens[1:], places)
    low = np.where(inside, first, inf).min(-1)
    high = np.where(inside, last, -inf).max(-1)
    beyond = np.where(loss[..., 0] < curve[..., -1], inf, -inf)
    found = inside.any(-1)
    middle = (np.where(found, low, 0) + np.where(found, high, 0)) / 2
    logarithms: Array = np.where(found, middle, beyond)
    return logarithms


def not_rising(curves: ArrayLike) -> Array:
    """Return the closest curves, by squares, that do not rise along the last axis.

    It is the min-max formula of isotonic regression (Barlow et al. 1972): the smallest over starts,
    up to a rung, of the largest mean from there over ends, from that rung on.

    Args:
        curves: Losses, [..., R].

    >>> not_rising([3.0, 2.0, 2.5, 1.0])
    array([3.  , 2.25, 2.25, 1.  ])
    """
    curve = np.asarray(curves, float)
    rungs = range(curve.shape[-1])
    fitted = [
        np.min(
            [
                np.max([curve[..., a : b + 1].mean(-1) for b in rungs[rung:]], axis=0)
                for a in rungs[: rung + 1]
            ],
            axis=0,
        )
        for rung in rungs
    ]
    return np.stack(fitted, axis=-1)


def _within(log_ends: Array, tokens: ArrayLike, at: int) -> tuple[float, float]:
    """Return the ends of an interval, 0 and infinite where they are beyond the rungs."""
    limits = np.log(np.asarray(tokens, float)) - np.log(np.asarray(tokens)[at])
    above = np.where(log_ends > limits[-1], inf, log_ends)
    low, high = np.exp(np.where(log_ends < limits[0], -inf, above)).tolist()
    return low, high
