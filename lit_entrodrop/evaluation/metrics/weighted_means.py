"""Weighted means over training steps, computed only when read."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor


class WeightedMeans:
    """Weighted means of named scalars, computed only when read.

    >>> means = WeightedMeans()
    >>> means.add("loss", torch.tensor(1.0), torch.tensor(1.0))
    >>> means.add("loss", torch.tensor(6.0), torch.tensor(3.0))
    >>> means.pop(lambda sums: sums)
    {'loss': 1.75}
    """

    def __init__(self) -> None:
        self._seen: dict[str, list[tuple[Tensor, Tensor]]] = {}

    def add(self, name: str, total: Tensor, weight: Tensor) -> None:
        """Add a weighted sum and its weight, two scalars."""
        self._seen.setdefault(name, []).append((total, weight))

    def state_dict(self) -> dict[str, Tensor]:
        """Return sums and weights by name, ``[N, 2]``, in the order in which they were added."""
        return {
            name: torch.stack([torch.stack([total, weight.to(total)]) for total, weight in pairs])
            for name, pairs in self._seen.items()
        }

    def load_state_dict(self, state_dict: dict[str, Tensor]) -> None:
        """Add the sums and weights of a state dict."""
        for name, pairs in state_dict.items():
            for total, weight in pairs:
                self.add(name, total, weight)

    def pop(self, reduce_sum: Callable[[Tensor], Any]) -> dict[str, float]:
        """Return and reset the means; ``reduce_sum`` sums a tensor over ranks.

        Names without any weight are left out.
        """
        if not self._seen:
            return {}
        sums = reduce_sum(torch.stack([_sums(pairs) for pairs in self._seen.values()]))
        means = (sums[:, 0] / sums[:, 1]).tolist()
        rows = zip(self._seen, means, sums[:, 1].tolist(), strict=True)
        found = {name: mean for name, mean, weight in rows if weight}
        self._seen.clear()
        return found


def _sums(pairs: list[tuple[Tensor, Tensor]]) -> Tensor:
    device = pairs[0][1].device
    columns = (
        torch.stack([scalar.to(device) for scalar in each]) for each in zip(*pairs, strict=True)
    )
    return torch.stack([column.sum() for column in columns])
