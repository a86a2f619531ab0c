"""Bytes that a device stores for a model in training, computed for each strategy.

Activations, autocast copies of weights, and the logits and gradient of the head are not included:
:mod:`lit_entrodrop.commands.plan.estimates.activations` measures them in a dry run.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, fields
from math import ceil
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import is_traceable_wrapper_subclass

from lit_entrodrop.model.sizes import Sizes
from lit_entrodrop.runtime.setting_checks import check_at_least
from lit_entrodrop.training.optim import to_training

# Names in `configs/strategy`, in order of rising demands on machine and user.
STRATEGIES = (
    "ddp",
    "fsdp2",
    "deepspeed_zero2",
    "deepspeed_zero3",
    "fsdp2_tp",
    "deepspeed_zero3_offload",
)
FP32 = 4  # bytes
# Defaults of DeepSpeed, in elements: size of a reduction, and limit of gathered parameters.
REDUCE_BUCKET = 500_000_000
MAX_LIVE_PARAMETERS = 1_000_000_000


@dataclass(frozen=True)
class NumberBytes:
    """Bytes per number in storage, in computing and in the optimizer."""

    stored: int = 4  # of a parameter, from `model.lm.dtype`
    computed: int = 2  # of a number in a matrix product; 2 under mixed precision
    optimizer: float = 8.0  # of a trainable parameter, see `optimizer_bytes`
    quantized: float | None = None  # of a parameter in 4 bits; None if none is quantized
    adapters: int = 0  # of a trainable parameter in storage beyond `stored`; peft keeps fp32

    @property
    def trained(self) -> int:
        """Bytes per trainable parameter in storage."""
        return self.stored + self.adapters


@dataclass(frozen=True)
class ModelMemory:
    """Memory of a model in training, in bytes per device."""

    parameters: int  # whole or sharded
    gradients: int  # those that stay from one micro-batch to the next
    optimizer: int  # including DeepSpeed's master copy of the parameters
    buffers: int  # gathered parameters, and gradients that are being sent
    host: int = 0  # in host memory instead of on the device

    def __add__(self, other: "ModelMemory") -> "ModelMemory":
        return ModelMemory(
            *(getattr(self, each.name) + getattr(other, each.name) for each in fields(self))
        )

    @property
    def device(self) -> int:
        """Total memory on the device, in bytes."""
        return self.parameters + self.gradients + self.optimizer + self.buffers


def check_known(strategy: str) -> None:
    """Raise an error if a strategy cannot be estimated."""
    if strategy not in STRATEGIES:
        raise ValueError(f"strategy: expected one of {', '.join(STRATEGIES)}, got {strategy!r}")


def model_memory(
    strategy: str,
    sizes: Sizes,
    world_size: int,
    number_bytes: NumberBytes,
    tensor_parallel_size: int = 1,
    reference: Sizes | None = None,
) -> ModelMemory:
    """Return the memory that a device needs for a model, and for a frozen reference model.

    Raises:
        ValueError: If the strategy is unknown, or does not support this number of devices.
    """
    check_known(strategy)
    check_at_least(1, world_size=world_size, tensor_parallel_size=tensor_parallel_size)
    if world_size % tensor_parallel_size:
        raise ValueError(
            f"world_size: expected a multiple of tensor_parallel_size, {tensor_parallel_size}, got "
            f"{world_size}: change one of them"
        )
    if reference is not None:
        trained = model_memory(strategy, sizes, world_size, number_bytes, tensor_parallel_size)
        return trained + _frozen(
            strategy, reference, world_size, number_bytes, tensor_parallel_size
        )
    if strategy == "ddp":
        return _replicated(sizes, world_size, number_bytes)
    if strategy.startswith("deepspeed"):
        return _deepspeed(strategy, sizes, world_size, number_bytes)
    return _fully_sharded(sizes, world_size, number_bytes, tensor_parallel_size)


def weight_bytes(sizes: Sizes, number_bytes: NumberBytes) -> int:
    """Return the bytes of all weights of a model, including quantized ones."""
    adapters = sizes.trainable * number_bytes.adapters
    if number_bytes.quantized is None:
        return sizes.parameters * number_bytes.stored + adapters
    others = (sizes.parameters - sizes.quantizable) * number_bytes.stored
    return others + ceil(sizes.quantizable * number_bytes.quantized) + adapters


def _frozen(
    strategy: str, sizes: Sizes, world_size: int, number_bytes: NumberBytes, tensor: int
) -> ModelMemory:
    # DeepSpeed casts and offloads only trained models; it shards others under ZeRO-3 alone.
    if strategy in ("ddp", "deepspeed_zero2"):
        return ModelMemory(weight_bytes(sizes, number_bytes), 0, 0, 0)
    if strategy.startswith("deepspeed"):
        shard, live = ceil(sizes.parameters / world_size), _live(sizes)
        return ModelMemory(shard * number_bytes.stored, 0, 0, live * number_bytes.stored)
    return _fully_sharded(sizes, world_size, number_bytes, tensor)


def _replicated(sizes: Sizes, world_size: int, number_bytes: NumberBytes) -> ModelMemory:
    gradients = sizes.trainable * number_bytes.trained
    layer = 0 if number_bytes.quantized is None else sizes.quantizable_layer
    sent = gradients if world_size > 1 else 0
    return ModelMemory(
        parameters=weight_bytes(sizes, number_bytes),
        gradients=gradients,
        optimizer=ceil(sizes.trainable * number_bytes.optimizer),
        buffers=sent + layer * number_bytes.computed,  # buckets, and a dequantized layer
    )


def _fully_sharded(
    sizes: Sizes, world_size: int, number_bytes: NumberBytes, tensor: int
) -> ModelMemory:
    block = ceil(sizes.block / tensor)
    block_gradients = ceil(sizes.block_trainable / tensor)
    # A gradient is computed in half precision and copied to fp32 for the sum over devices, while
    # the gradient of the previous block is being sent.
    in_transit = number_bytes.computed + FP32
    # The next block is gathered at the same time; weights around the blocks stay gathered.
    weights = (2 * block + sizes.around) * number_bytes.computed
    return ModelMemory(
        parameters=ceil(sizes.parameters / world_size) * number_bytes.stored
        + ceil(sizes.trainable / world_size) * number_bytes.adapters,
        gradients=ceil(sizes.trainable / world_size) * number_bytes.trained,
        optimizer=ceil(sizes.trainable / world_size * number_bytes.optimizer),
        buffers=weights + max(2 * block_gradients, sizes.around_trainable) * in_transit,
    )


def _deepspeed(
    strategy: str, sizes: Sizes, world_size: int, number_bytes: NumberBytes
) -> ModelMemory:
    trained = ceil(sizes.trainable / world_size)
    gradients = trained * FP32
    master_and_states = trained * FP32 + ceil(trained * number_bytes.optimizer)
    bucket = REDUCE_BUCKET * FP32
    if strategy == "deepspeed_zero2":
        weights = sizes.parameters * number_bytes.computed
        return ModelMemory(weights, gradients, master_and_states, bucket)
    weights = ceil(sizes.parameters / world_size) * number_bytes.computed
    live = _live(sizes) * number_bytes.computed
    if strategy == "deepspeed_zero3":
        return ModelMemory(weights, gradients, master_and_states, live + bucket)
    return ModelMemory(0, 0, 0, live + bucket, host=weights + gradients + master_and_states)


def _live(sizes: Sizes) -> int:
    """Return the number of parameters that ZeRO-3 may keep gathered."""
    at_least = sizes.around + 2 * sizes.block
    return min(sizes.parameters, max(at_least, MAX_LIVE_PARAMETERS))


def optimizer_bytes(
    make: Callable[[Iterable[Any]], Any], dtype: torch.dtype, hidden: float = 1.0
) -> float:
    """Take one optimizer step, and return the bytes of its state per parameter.

    Args:
        make: Function that makes the optimizer of parameter groups.
        dtype: Type of the parameters.
        hidden: Share of the parameters that are matrices of transformer blocks, to which Muon gives
            another state than to the others.

    >>> optimizer_bytes(torch.optim.AdamW, torch.float32)
    8.0
    """
    found = hidden * _state_bytes(make, dtype, is_hidden=True)
    return found + (1 - hidden) * _state_bytes(make, dtype, is_hidden=False)


def _state_bytes(
    make: Callable[[Iterable[Any]], Any], dtype: torch.dtype, is_hidden: bool
) -> float:
    parameter = nn.Parameter(torch.zeros(128, 8192, dtype=dtype))
    parameter.grad = torch.zeros_like(parameter)
    optimizer = make([{"params": [parameter], "hidden": is_hidden}])
    to_training(optimizer, nn.Module())
    # Compiling a step takes longer than the step.
    with torch.compiler.set_stance("force_eager"):
        optimizer.step()
    state = optimizer.state[parameter].values()
    # A step count is a single element, whatever the size of the parameter.
    tensors = [each for each in state if isinstance(each, Tensor) and each.numel() > 1]
    return sum(map(_tensor_bytes, tensors)) / parameter.numel()


def _tensor_bytes(tensor: Tensor) -> int:
    """Return the bytes of a tensor; for a quantized one, of the tensors that it consists of."""
    if not is_traceable_wrapper_subclass(tensor):
        return tensor.nbytes
    names, _ = tensor.__tensor_flatten__()
    return sum(_tensor_bytes(getattr(tensor, name)) for name in names)
