"""Parameter groups of the optimizer."""

from typing import Any

from torch import nn

from lit_entrodrop.runtime.sharding import unsharded_shape


def decay_groups(module: nn.Module) -> list[dict[str, Any]]:
    """Split the trainable parameters into matrices, which decay, and the rest, which does not.

    >>> [len(group["params"]) for group in decay_groups(nn.Linear(2, 2))]
    [1, 1]
    """
    trainable = [parameter for parameter in module.parameters() if parameter.requires_grad]
    groups: list[dict[str, Any]] = [
        {"params": [p for p in trainable if len(unsharded_shape(p)) >= 2]},
        {"params": [p for p in trainable if len(unsharded_shape(p)) < 2], "weight_decay": 0.0},
    ]
    return [group for group in groups if group["params"]]
