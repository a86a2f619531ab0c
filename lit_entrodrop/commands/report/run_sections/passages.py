"""Validation passages, each token colored by its entropy or by the change of its loss."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.colors import LinearSegmentedColormap, to_hex
from numpy.typing import NDArray

from lit_entrodrop.commands.report.records.run_record import RunRecord
from lit_entrodrop.commands.report.run_sections.entropies import when
from lit_entrodrop.runs.evaluations import Evaluation

ENTROPY_SHADES = 8
CHANGE_SHADES = 9  # odd: the middle one is no change
# Share of the tokens that the scales cover, so that one outlier does not flatten all others.
MOST = 0.97
# Light enough that dark text on them has a contrast of at least 7.
ENTROPY_COLORS = ("#ffffff", "#fbd9b5", "#f0a35e")
CHANGE_COLORS = ("#6db1e8", "#ffffff", "#f09b6b")


@dataclass(frozen=True)
class ShownToken:
    """A token with its CSS classes and its tooltip."""

    text: str
    classes: str
    tooltip: str


@dataclass(frozen=True)
class PassageView:
    """Passages and the scales of their colors: the center of each shade, nats.

    Attributes:
        change: The two evaluations between which the loss changed; empty if there is one.
    """

    passages: list[list[ShownToken]]
    change: str
    entropy_scale: list[float]
    change_scale: list[float]


def passage_view(run: RunRecord) -> PassageView | None:
    """Return the passages of a run, None if it has none."""
    kept = run.info.get("passages", {})
    texts = kept.get("tokens", [])
    if not texts or not any(texts):
        return None
    entropy = _fitted(kept.get("reference_entropy", []), texts)
    pair = compared_evaluations(run)
    before, after = (_fitted(e.passage_nll if e else [], texts) for e in pair)
    span = _quantile(np.abs(after - before), MOST) or 1.0
    shades, scale = entropy_shades(entropy)
    half = CHANGE_SHADES // 2
    changes = _shades((after - before) / span * (half + 0.5) + half + 0.5, 0, CHANGE_SHADES - 1)
    passages = [
        [
            ShownToken(
                text,
                f"e{shades[p, t]} c{changes[p, t]}".replace("-1", "x"),
                _tooltip(entropy[p, t], before[p, t], after[p, t]),
            )
            for t, text in enumerate(tokens)
        ]
        for p, tokens in enumerate(texts)
    ]
    return PassageView(
        passages,
        change=f"{when(pair[0])} → {when(pair[1])}" if pair[0] and pair[1] else "",
        entropy_scale=scale,
        change_scale=[span * (i - half) / (half + 0.5) for i in range(CHANGE_SHADES)],
    )


def compared_evaluations(run: RunRecord) -> tuple[Evaluation | None, Evaluation | None]:
    """Return the best and the last evaluation, or the first and the last if the last is best."""
    if len(run.detailed) < 2:
        return None, None
    best = min(run.detailed, key=lambda evaluation: float(evaluation.loss[0]))
    last = run.detailed[-1]
    return (run.detailed[0] if best is last else best), last


def entropy_shades(entropy: NDArray[np.float64]) -> tuple[NDArray[np.int64], list[float]]:
    """Return the shade of each entropy, -1 where it is NaN, and the center of each shade, nats."""
    low, top = _quantile(entropy, 0.03), _quantile(entropy, MOST)
    width = (top - low) / ENTROPY_SHADES or 1.0
    shades = _shades((entropy - low) / width, 0, ENTROPY_SHADES - 1)
    return shades, [low + width * (i + 0.5) for i in range(ENTROPY_SHADES)]


def palette() -> dict[str, str]:
    """Return the color of each CSS class."""
    return _colors("e", ENTROPY_COLORS, ENTROPY_SHADES) | _colors("c", CHANGE_COLORS, CHANGE_SHADES)


def _colors(prefix: str, ends: Sequence[str], count: int) -> dict[str, str]:
    shades: Any = LinearSegmentedColormap.from_list(prefix, ends)
    return {f"{prefix}{i}": to_hex(shades(i / (count - 1))) for i in range(count)}


def _fitted(rows: Any, texts: list[list[str]]) -> NDArray[np.float64]:
    """Return a number for each token of each text, NaN where the rows have none."""
    longest = max(map(len, texts))
    table = pd.DataFrame(rows).reindex(index=range(len(texts)), columns=range(longest))
    values: NDArray[np.float64] = table.to_numpy(dtype=np.float64)
    return values


def _quantile(values: NDArray[np.float64], quantile: float) -> float:
    known = values[np.isfinite(values)]
    return float(np.quantile(known, quantile)) if len(known) else 0.0


def _shades(values: NDArray[np.float64], lowest: int, highest: int) -> NDArray[np.int64]:
    unknown = np.isnan(values)
    bounded = np.clip(np.floor(np.where(unknown, 0, values)), lowest, highest)
    return np.where(unknown, -1, bounded).astype(int)


def _tooltip(entropy: float, before: float, after: float) -> str:
    parts = []
    if np.isfinite(entropy):
        parts.append(f"entropy {entropy:.2f} nats")
    if np.isfinite(before) and np.isfinite(after):
        parts.append(f"loss {before:.2f} → {after:.2f} ({after - before:+.2f})")
    return " · ".join(parts) or "not part of the loss"
