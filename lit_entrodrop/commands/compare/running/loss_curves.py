"""Validation losses of runs over training, as lines of text."""

from collections.abc import Mapping, Sequence

import numpy as np

BARS = "▁▂▃▄▅▆▇█"


def loss_curves(losses: Mapping[str, Sequence[float]]) -> list[str]:
    r"""Draw one line per run: a bar per evaluation, then the lowest and the last loss.

    All runs share the scale. Losses above the median of all runs are drawn at full height, as the
    first ones are so high that they would hide the rebound of overfitting.

    Args:
        losses: Losses on the validation split in nats per token, in order, by run.

    >>> print(*loss_curves({"plain": [6.0, 4.0, 3.0, 3.8], "mine": [6.0, 4.0, 3.0]}), sep="\n")
    plain  ██▁▇  lowest 3.0000, last 3.8000
    mine   ██▁   lowest 3.0000, last 3.0000
    """
    shown = {name: values for name, values in losses.items() if len(values)}
    if not shown:
        return []
    every = np.concatenate([np.asarray(values, dtype=float) for values in shown.values()])
    low, high = float(every.min()), float(np.median(every))
    name_width, width = max(map(len, shown)), max(map(len, shown.values()))
    return [
        f"{name:<{name_width}}  {_bars(values, low, high):<{width}}  "
        f"lowest {min(values):.4f}, last {values[-1]:.4f}"
        for name, values in shown.items()
    ]


def _bars(values: Sequence[float], low: float, high: float) -> str:
    scaled = (np.asarray(values, dtype=float) - low) / max(high - low, 1e-9)
    heights = (scaled.clip(0, 1) * (len(BARS) - 1)).round().astype(int)
    return "".join(BARS[height] for height in heights)
