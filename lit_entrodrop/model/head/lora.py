"""Read peft's LoRA layers, whose attributes have no documented interface (checked on peft 0.21).

The fused head replaces the forward pass of an adapted head, so it must read what that pass reads.
``tests/lit_entrodrop/model/test_causal_lm.py`` compares both.
"""

from typing import Any

from torch import Tensor, nn


class UnsupportedHeadError(ValueError):
    """The fused head cannot replace the output head of a model."""


def enabled_head(head: Any) -> nn.Module:
    """Return a head, or the layer that its disabled adapters are around."""
    if getattr(head, "disable_adapters", False) is not True:
        own: nn.Module = head
        return own
    if not is_copied(head) and head.merged:
        # As in the forward pass of peft, which the fused head replaces.
        head.unmerge()
    below: nn.Module = head.original_module if is_copied(head) else head.base_layer
    return below


def base_linear(head: Any) -> nn.Linear:
    """Return the linear layer of a head, without peft around it."""
    if is_copied(head):
        # As in the forward pass of peft, which the fused head replaces.
        trained = not head.disable_adapters and head.active_adapters
        head = head.modules_to_save[trained[0]] if trained else head.original_module
    linear: nn.Linear = getattr(head, "base_layer", head)
    return linear


def is_copied(head: Any) -> bool:
    """Return whether peft trains a copy of a head, as one of its ``modules_to_save``."""
    return isinstance(getattr(head, "modules_to_save", None), nn.ModuleDict)


def require_supported(head: Any) -> None:
    """Raise an UnsupportedHeadError unless a head is linear with at most one plain LoRA."""
    linear = base_linear(head)
    if type(linear) is not nn.Linear:
        raise UnsupportedHeadError(f"its head is {type(linear).__name__}, not nn.Linear")
    if linear is head or is_copied(head):
        return
    if not hasattr(head, "lora_A"):
        raise UnsupportedHeadError(f"its head is adapted by {type(head).__name__}, not by LoRA")
    _active_adapter(head)


def lora_tensors(head: Any, hidden: Tensor, scale: float) -> tuple[Tensor, Tensor] | None:
    """Return the input ``[N, R]`` and the weight ``[V, R]`` of the active adapter, if any.

    Raises:
        UnsupportedHeadError: If the adapters changed to unsupported ones.
    """
    if not hasattr(head, "lora_A"):
        return None
    adapter = _active_adapter(head)
    if adapter is None:
        return None
    down = head.lora_A[adapter]
    reduced = down(head.lora_dropout[adapter](hidden.to(down.weight.dtype)))
    return scale * head.scaling[adapter] * reduced, head.lora_B[adapter].weight


def _active_adapter(head: Any) -> str | None:
    """Return the name of the adapter whose product is added separately, if any."""
    if head.disable_adapters or head.merged:
        return None
    active = [name for name in head.active_adapters if name in head.lora_A]
    if len(active) > 1 or any(
        name in head.lora_variant or head.lora_B[name].bias is not None for name in active
    ):
        raise UnsupportedHeadError("its head has adapters other than one plain LoRA without bias")
    return active[0] if active else None
