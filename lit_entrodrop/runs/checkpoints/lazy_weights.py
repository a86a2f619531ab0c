"""Weights that stay in their files until they are asked for."""

from collections.abc import Callable, Iterator, Mapping

import torch
from torch import Tensor


class LazyWeights(Mapping[str, Tensor]):
    """A state dict that reads a weight each time it is asked for one, and keeps none.

    Args:
        readers: read a weight, by name.
        shapes: of the weights, by name; known without reading.

    >>> weights = LazyWeights({"a": lambda: torch.ones(2)}, {"a": torch.Size([2])})
    >>> weights.shapes["a"], weights["a"]
    (torch.Size([2]), tensor([1., 1.]))
    """

    def __init__(
        self, readers: Mapping[str, Callable[[], Tensor]], shapes: Mapping[str, torch.Size]
    ) -> None:
        self._readers = dict(readers)
        self.shapes = dict(shapes)

    def __getitem__(self, name: str) -> Tensor:
        return self._readers[name]()

    def __iter__(self) -> Iterator[str]:
        return iter(self._readers)

    def __len__(self) -> int:
        return len(self._readers)

    def __contains__(self, name: object) -> bool:
        # That of Mapping would read the weight.
        return name in self._readers
