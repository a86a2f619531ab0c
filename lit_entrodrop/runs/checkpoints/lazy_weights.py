"""State dict whose weights are read from files on access."""

from collections.abc import Callable, Iterator, Mapping

import torch
from torch import Tensor


class LazyWeights(Mapping[str, Tensor]):
    """State dict that reads a weight at each access and keeps none in memory.

    Args:
        readers: Functions that read a weight, by name of the weight.
        shapes: Shapes of the weights, by name, known without reading them.

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
        # The method of Mapping would read the weight.
        return name in self._readers
