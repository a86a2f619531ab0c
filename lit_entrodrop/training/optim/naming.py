"""Names of trained parameters as in the Hugging Face model, and their depth in it."""

import re
from collections import defaultdict
from collections.abc import Callable
from typing import NamedTuple

from torch import nn

from lit_entrodrop.model.building import transformer_blocks
from lit_entrodrop.runtime.sharding import unsharded_shape

# Parts of names that this package, PyTorch and peft add around a model.
WRAPPERS = ("causal_lm", "hf_model", "_orig_mod", "base_layer", "default", "modules_to_save")


class NamedParameter(NamedTuple):
    """A parameter and its names in the Hugging Face model; a tied one has several."""

    names: tuple[str, ...]
    parameter: nn.Parameter

    @property
    def is_matrix(self) -> bool:
        """Whether the whole parameter has two dimensions or more."""
        return len(unsharded_shape(self.parameter)) >= 2

    def matches(self, pattern: str) -> bool:
        """Return whether a regular expression is found in one of the names."""
        return any(re.search(pattern, name) for name in self.names)


class Depth(NamedTuple):
    """Place of a parameter in a model.

    Attributes:
        name: ``embeddings``, ``layer`` and its number, or ``head`` for all else.
        below: Number of transformer blocks from there to the last one.
    """

    name: str
    below: int

    @property
    def is_block(self) -> bool:
        """Whether it is within a transformer block."""
        return self.name.startswith("layer")


def hf_name(name: str) -> str:
    """Return the name of a parameter as in the Hugging Face model, without what wraps the model.

    >>> hf_name("causal_lm.hf_model.model.norm.weight")
    'model.norm.weight'
    >>> hf_name("causal_lm.hf_model.base_model.model.lm_head.lora_A.default.weight")
    'lm_head.lora_A.weight'
    """
    kept = ".".join(part for part in name.split(".") if part not in WRAPPERS)
    return kept.removeprefix("base_model.model.")


def named_parameters(module: nn.Module) -> list[NamedParameter]:
    """Return each parameter of a module once, with all its names."""
    names: dict[nn.Parameter, list[str]] = defaultdict(list)
    for name, parameter in module.named_parameters(remove_duplicate=False):
        names[parameter].append(hf_name(name))
    return [NamedParameter(tuple(found), parameter) for parameter, found in names.items()]


def depths_of(module: nn.Module) -> Callable[[NamedParameter], Depth]:
    """Return a function from the parameters of a module to their depth.

    >>> model = nn.ModuleDict({"embed": nn.Embedding(2, 2), "layers": nn.ModuleList([])})
    >>> model["layers"].extend([nn.Linear(2, 2), nn.Linear(2, 2)])
    ModuleList(
      (0-1): 2 x Linear(in_features=2, out_features=2, bias=True)
    )
    >>> depth_of = depths_of(model)
    >>> [tuple(depth_of(each)) for each in named_parameters(model)][:2]
    [('embeddings', 2), ('layer 0', 1)]
    """
    # Regularizers may form a longer list than the blocks.
    blocks = transformer_blocks(getattr(module, "causal_lm", module))
    places: dict[nn.Parameter, Depth] = {}
    for index, block in enumerate(blocks):
        depth = Depth(f"layer {index}", len(blocks) - 1 - index)
        places |= dict.fromkeys(block.parameters(), depth)
    for part in module.modules():
        if isinstance(part, nn.Embedding):
            for parameter in part.parameters():
                places.setdefault(parameter, Depth("embeddings", len(blocks)))
    return lambda named: places.get(named.parameter, Depth("head", 0))
