"""Comparison of two runs bit by bit: contents of their checkpoints, and their metrics."""

import math
import re
from collections.abc import Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import pandas as pd
import torch
from torch import Tensor

# Words in the names of metrics about time, which differ between any two runs.
CLOCKS = {"time", "sec", "second", "seconds", "throughput", "utilization"}
# Key of the state of Lightning's Timer.
TIME_ELAPSED = "time_elapsed"
ABSENT = "nothing"


@dataclass(frozen=True)
class Difference:
    """Value that differs in two runs; for a tensor, its first element that differs.

    >>> print(Difference("a.b", 1, 3, "2 apart"))
    a.b: 1 uninterrupted, 3 resumed; 2 apart
    """

    name: str
    whole: object  # in the uninterrupted run
    resumed: object
    extent: str = ""  # number of elements that differ, and by how much

    def __str__(self) -> str:
        extent = f"; {self.extent}" if self.extent else ""
        return f"{self.name}: {self.whole} uninterrupted, {self.resumed} resumed{extent}"


@dataclass
class Comparison:
    """Numbers of compared items, and the differences found.

    >>> comparison = Comparison()
    >>> comparison.compare({"a": [1, 2.0]}, {"a": [1, 2.5]})
    >>> print(comparison.values, comparison.differences[0])
    2 a.1: 2.0 uninterrupted, 2.5 resumed; 0.5 apart
    """

    tensors: int = 0
    values: int = 0
    rows: int = 0
    differences: list[Difference] = field(default_factory=list)

    def compare(self, whole: Any, resumed: Any, name: str = "") -> None:
        """Compare tensors and values, nested to any depth."""
        if (parts := _parts(whole)) is not None and (others := _parts(resumed)) is not None:
            self._compare_parts(parts, others, name)
        elif isinstance(whole, Tensor) and isinstance(resumed, Tensor):
            self.tensors += 1
            self.differences += compare_tensors(whole, resumed, name)
        else:
            self.values += 1
            self.differences += compare_values(whole, resumed, name)

    def compare_metrics(self, whole: pd.DataFrame, resumed: pd.DataFrame, name: str) -> None:
        """Compare metrics, one row per step, except those about time."""
        self.rows += len(whole)
        for step in whole.index.union(resumed.index):
            row, other = (_row(metrics, step) for metrics in (whole, resumed))
            for column in sorted(row.keys() | other):
                where = f"{name}, step {step}, {column}"
                values = row.get(column, ABSENT), other.get(column, ABSENT)
                self.differences += compare_values(*values, where)

    def _compare_parts(
        self, whole: Mapping[Any, Any], resumed: Mapping[Any, Any], name: str
    ) -> None:
        for key in [*whole, *(key for key in resumed if key not in whole)]:
            if key == TIME_ELAPSED:
                continue
            # Each lookup reads lazy weights, so only one value is in memory.
            value, other = whole.get(key, ABSENT), resumed.get(key, ABSENT)
            self.compare(value, other, f"{name}.{key}" if name else str(key))


def compare_tensors(whole: Tensor, resumed: Tensor, name: str) -> Iterator[Difference]:
    """Yield the difference of two tensors, if any bit differs.

    >>> print(*compare_tensors(torch.tensor([1.0, 2.0]), torch.tensor([1.0, 2.5]), "w"))
    w[1]: 2.0 uninterrupted, 2.5 resumed; 1 of 2 elements differ, by at most 0.5
    """
    kinds = [f"{tuple(tensor.shape)} {tensor.dtype}" for tensor in (whole, resumed)]
    if kinds[0] != kinds[1]:
        yield Difference(name, *kinds)
        return
    flat, other_flat = (tensor.detach().reshape(-1) for tensor in (whole, resumed))
    if torch.equal(flat.view(torch.uint8), other_flat.view(torch.uint8)):
        return
    # As bytes, a NaN equals itself.
    unlike = flat.view(torch.uint8).ne(other_flat.view(torch.uint8)).view(flat.numel(), -1).any(1)
    places = unlike.nonzero().flatten()
    index = [int(each) for each in torch.unravel_index(places[0], whole.shape)]
    gap = (flat[places].double() - other_flat[places].double()).abs().max().item()
    extent = f"{len(places)} of {flat.numel()} elements differ, by at most {gap:.3g}"
    first, other = (tensor[places[0]].item() for tensor in (flat, other_flat))
    yield Difference(f"{name}{index if index else ''}", first, other, extent)


def compare_values(whole: Any, resumed: Any, name: str) -> Iterator[Difference]:
    """Yield the difference of two plain values, if any; NaN equals itself.

    >>> list(compare_values(float("nan"), float("nan"), "loss"))
    []
    """
    if type(whole) is type(resumed):
        both_nan = isinstance(whole, float) and math.isnan(whole) and math.isnan(resumed)
        if both_nan or whole == resumed:
            return
    numbers = isinstance(whole, int | float) and isinstance(resumed, int | float)
    extent = f"{abs(whole - resumed):.3g} apart" if numbers else ""
    yield Difference(name, _brief(whole), _brief(resumed), extent)


def is_clock(column: str) -> bool:
    """Return whether a metric is about time.

    >>> is_clock("train/tokens_per_sec"), is_clock("train/timestep_loss")
    (True, False)
    """
    return not CLOCKS.isdisjoint(re.split("[^a-z]+", column.lower()))


def without_root(value: Any, root: str) -> Any:
    """Return nested values with a run folder replaced in all paths.

    >>> without_root({"best": "/a/b/best.ckpt"}, "/a/b")
    {'best': '<run>/best.ckpt'}
    """
    if isinstance(value, str):
        return value.replace(root, "<run>")
    if isinstance(value, dict):
        return {without_root(key, root): without_root(each, root) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [without_root(each, root) for each in value]
    return value


def _parts(value: Any) -> Mapping[Any, Any] | None:
    if isinstance(value, Mapping):
        return value
    if isinstance(value, Sequence) and not isinstance(value, str | bytes):
        return dict(enumerate(value))
    if isinstance(value, Tensor):
        # Some are made of others, such as the 8-bit moments of torchao, of codes and scales.
        flatten = getattr(value, "__tensor_flatten__", None)
        return None if flatten is None else {name: getattr(value, name) for name in flatten()[0]}
    # Placeholders for the types of DeepSpeed.
    return getattr(value, "__dict__", None)


def _brief(value: Any) -> Any:
    if isinstance(value, Tensor):
        return f"a tensor {tuple(value.shape)}"
    return value if _parts(value) is None else f"{type(value).__name__} of {len(value)}"


def _row(metrics: pd.DataFrame, step: Hashable) -> dict[str, Any]:
    if step not in metrics.index:
        return {}
    row = metrics.loc[step].dropna()
    return {str(name): value for name, value in row.items() if not is_clock(str(name))}
