"""Rule that decides whether a group of tokens overfits."""

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from lit_entrodrop.evaluation.diagnosis.loss_curve import LEAST_RISE
from lit_entrodrop.evaluation.statistics import CONFIDENCE

Kind = Literal["overfits", "diverges", "holds", "unknown"]
Floats = NDArray[np.float64]

# More documents are resampled in groups, which costs less and changes little.
MOST_GROUPS = 2000
RESAMPLES = 1000
RULE = (
    f"A group of tokens overfits if its validation loss is now at least {LEAST_RISE:.0%} above its "
    f"lowest value, with {CONFIDENCE:.0%} confidence. Its loss on clean training text, if known, "
    "must not have risen by half as much. The confidence comes from a paired one-sided t-test over "
    "validation documents. A Bonferroni correction covers the number of groups and all pairs of "
    "evaluations so far. The onset is the first evaluation after the lowest loss. The "
    "interval of the best epoch comes from a bootstrap over documents with "
    f"{RESAMPLES} samples. If the loss on training text rises too, training diverges."
)


@dataclass(frozen=True)
class OverfittingVerdict:
    """Verdict on one group of tokens.

    Attributes:
        kind: ``overfits``; ``diverges`` if the loss on training text rises too; ``holds`` if no
            rise is shown; ``unknown`` if there is too little data.
        best_epoch: Passes over the data at the lowest validation loss.
        best_loss: Lowest validation loss, nats per token.
        best_epoch_interval: 95% interval of ``best_epoch`` over documents.
        onset_epoch: Passes over the data at the first evaluation after the lowest loss; None unless
            the kind is ``overfits``.
        rise: Last loss minus lowest loss, nats per token.
        rise_interval: 95% interval of ``rise`` over documents.
        confidence: Confidence that the loss has risen at all, in [0, 1].
        clean_train_change: Change of the loss on training text since ``best_epoch``, nats per
            token; None if unknown.
    """

    kind: Kind
    best_epoch: float
    best_loss: float
    best_epoch_interval: tuple[float, float]
    onset_epoch: float | None
    rise: float
    rise_interval: tuple[float, float]
    confidence: float
    clean_train_change: float | None

    @property
    def overfits(self) -> bool:
        """Whether the group overfits."""
        return self.kind == "overfits"


def judge(
    nll: Floats,
    tokens: NDArray[np.int64],
    epochs: Floats,
    clean_train: Floats | None = None,
    groups: int = 1,
) -> OverfittingVerdict:
    """Apply the rule to E evaluations on D documents.

    Args:
        nll: Loss of each document, summed over its tokens in the group, ``[E, D]`` nats.
        tokens: Number of tokens of each document in the group, ``[D]``.
        epochs: Passes over the training data at each evaluation, ``[E]``.
        clean_train: Loss on clean training text, ``[E]`` nats per token; None if unknown.
        groups: Number of groups to judge. Default: 1.

    >>> from numpy.random import default_rng
    >>> noise = default_rng(0).normal(size=(1, 200))
    >>> curve = np.array([[3.0], [2.0], [2.5]])
    >>> verdict = judge(10 * curve + noise, np.full(200, 10), np.arange(3.0))
    >>> verdict.kind, verdict.onset_epoch, round(verdict.rise, 3)
    ('overfits', 2.0, 0.5)
    """
    nll, tokens = nll[:, tokens > 0], tokens[tokens > 0]
    if len(epochs) < 2 or len(tokens) < 2:
        return _unknown(nll, tokens, epochs)
    losses = nll.sum(1) / tokens.sum()
    best = int(losses.argmin())
    rise, error = paired_rise(nll[-1] - nll[best], tokens)
    half = error * stats.t.ppf(1 - (1 - CONFIDENCE) / 2, len(tokens) - 1)
    # Each evaluation is compared with the lowest one before it.
    pairs = len(epochs) * (len(epochs) - 1) // 2
    confidence = _confidence(rise, error, len(tokens), pairs * groups)
    change = None if clean_train is None else float(clean_train[-1] - clean_train[best])
    kind: Kind = "holds"
    if confidence >= CONFIDENCE and rise >= LEAST_RISE * losses[best]:
        kind = "diverges" if change is not None and change > rise / 2 else "overfits"
    return OverfittingVerdict(
        kind,
        float(epochs[best]),
        float(losses[best]),
        best_epoch_interval(nll, tokens, epochs),
        float(epochs[best + 1]) if kind == "overfits" else None,
        rise,
        (rise - half, rise + half),
        confidence,
        change,
    )


def paired_rise(difference: Floats, tokens: NDArray[np.int64]) -> tuple[float, float]:
    """Return a difference of losses, nats per token, and its standard error over documents.

    The sampling unit is the document, as tokens of a document are correlated. The error is the
    standard error of a ratio of two sums (Cochran 1977, Sampling Techniques, eq. 6.13).

    Args:
        difference: Difference of the summed loss of each document, ``[D]`` nats.
        tokens: Number of tokens of each document, ``[D]``.

    >>> paired_rise(np.array([1.0, 3.0]), np.array([2, 2]))
    (1.0, 0.5)
    """
    total, count = tokens.sum(), len(tokens)
    rise = float(difference.sum() / total)
    residual = difference - rise * tokens
    return rise, float(np.sqrt(count / (count - 1) * (residual**2).sum()) / total)


def best_epoch_interval(
    nll: Floats, tokens: NDArray[np.int64], epochs: Floats
) -> tuple[float, float]:
    """Return the 95% interval of the epoch of the lowest loss, by a bootstrap over documents.

    The arguments are those of :func:`judge`.
    """
    random = np.random.default_rng(0)
    groups = np.arange(len(tokens)) % MOST_GROUPS
    sums = np.stack([np.bincount(groups, row) for row in nll])
    counts = np.bincount(groups, tokens)
    shares = np.full(len(counts), 1 / len(counts))
    weights = random.multinomial(len(counts), shares, size=RESAMPLES).astype(np.float64)
    losses = (weights @ sums.T) / (weights @ counts)[:, None]
    tail = (1 - CONFIDENCE) / 2
    found = np.sort(epochs[losses.argmin(1)])
    low, high = np.quantile(found, [tail, 1 - tail], method="closest_observation")
    return float(low), float(high)


def _confidence(rise: float, error: float, documents: int, comparisons: int) -> float:
    if rise <= 0 or error == 0:
        return float(rise > 0)
    p_value = stats.t.sf(rise / error, documents - 1)
    return float(max(0.0, 1 - comparisons * p_value))


def _unknown(nll: Floats, tokens: NDArray[np.int64], epochs: Floats) -> OverfittingVerdict:
    losses = nll.sum(1) / tokens.sum() if tokens.size else np.full(len(epochs), np.nan)
    best = int(losses.argmin())
    at = float(epochs[best])
    nan = float("nan")
    return OverfittingVerdict(
        "unknown", at, float(losses[best]), (at, at), None, nan, (nan, nan), 0.0, None
    )
