"""State dict whose weights are read from files on access."""

from collections import UserDict
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from lit_entrodrop.runtime.sharding import unsharded_shape


def shapes(state_dict: Mapping[str, Any]) -> dict[str, torch.Size]:
    """Return the unsharded shapes of the tensors of a state dict, by name, without reading any."""
    if isinstance(state_dict, LazyWeights):
        return state_dict.shapes
    return {name: unsharded_shape(tensor) for name, tensor in state_dict.items()}


class LazyWeights(UserDict[str, Any]):
    """State dict that reads a weight at each access and keeps none in memory.

    Args:
        weights: Shape of each weight and function that reads it, by name.

    >>> weights = LazyWeights({"a": (torch.Size([2]), lambda: torch.ones(2))})
    >>> weights.shapes["a"], weights["a"]
    (torch.Size([2]), tensor([1., 1.]))
    """

    def __init__(self, weights: Mapping[str, tuple[torch.Size, Callable[[], Tensor]]]) -> None:
        super().__init__(weights)
        self.shapes = {name: shape for name, (shape, _) in weights.items()}

    def __getitem__(self, name: str) -> Tensor:
        weight: Tensor = self.data[name][1]()
        return weight
