"""How many bytes a device holds of a model that is trained, by strategy: arithmetic.

What a step makes is not among them: activations, autocast's copies of weights, and the head's
logits and gradient, which :mod:`lit_entrodrop.commands.plan.activations` finds by a dry run.
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
from lit_entrodrop.training.strategies.names import check_known

FP32 = 4  # bytes
# DeepSpeed's defaults, in numbers: what it reduces at once, and what it may hold gathered.
REDUCE_BUCKET = 500_000_000
MAX_LIVE_PARAMETERS = 1_000_000_000


@dataclass(frozen=True)
class Held:
    """In what the numbers of a run are held, in bytes.

    Args:
        stored: of a parameter, as ``model.lm.dtype`` says.
        computed: of a number in a matrix product: 2 under a mixed precision.
        optimizer: of the optimizer's state, for each trainable parameter; see
            :func:`optimizer_bytes`.
    """

    stored: int = 4
    computed: int = 2
    optimizer: float = 8.0


@dataclass(frozen=True)
class States:
    """Bytes that a device holds; ``host`` is what it keeps in host memory.

    Args:
        parameters: whole or sharded.
        gradients: as they are kept from one micro-batch to the next.
        optimizer: states, with DeepSpeed's master copy of the parameters.
        gathered: copies of parameters to compute with, and gradients on their way to other devices.
        host: bytes in host memory.
    """

    parameters: int
    gradients: int
    optimizer: int
    gathered: int
    host: int = 0

    def __add__(self, other: "States") -> "States":
        """Hold both."""
        return States(
            *(getattr(self, each.name) + getattr(other, each.name) for each in fields(self))
        )

    @property
    def device(self) -> int:
        """Bytes on the device in all."""
        return sum(getattr(self, each.name) for each in fields(self) if each.name != "host")


def states(
    strategy: str,
    sizes: Sizes,
    world_size: int,
    held: Held,
    tensor_parallel_size: int = 1,
    frozen: Sizes | None = None,
) -> States:
    """Return what a device holds.

    Args:
        strategy: name of a file in ``configs/strategy``.
        sizes: of the model.
        world_size: devices in all.
        held: in what its numbers are held.
        tensor_parallel_size: devices that share out a block; for ``fsdp2_tp``.
        frozen: of a reference model beside the one that is trained; nothing of it is trainable.

    Raises:
        ValueError: if the strategy is unknown, or the devices cannot be arranged so.
    """
    check_known(strategy)
    check_at_least(1, world_size=world_size, tensor_parallel_size=tensor_parallel_size)
    if world_size % tensor_parallel_size:
        raise ValueError(
            f"world_size: expected a multiple of tensor_parallel_size, {tensor_parallel_size}, got "
            f"{world_size}: change one of them"
        )
    if frozen is not None:
        trained = states(strategy, sizes, world_size, held, tensor_parallel_size)
        return trained + _frozen(strategy, frozen, world_size, held, tensor_parallel_size)
    if strategy == "ddp":
        return _replicated(sizes, world_size, held)
    if strategy.startswith("deepspeed"):
        return _deepspeed(strategy, sizes, world_size, held)
    return _fully_sharded(strategy, sizes, world_size, held, tensor_parallel_size)


def _frozen(strategy: str, sizes: Sizes, world_size: int, held: Held, tensor: int) -> States:
    # DeepSpeed casts and offloads only what it trains, and deals out the rest under ZeRO-3 alone.
    if strategy in ("ddp", "deepspeed_zero2"):
        return States(sizes.parameters * held.stored, 0, 0, 0)
    if strategy.startswith("deepspeed"):
        shard, live = ceil(sizes.parameters / world_size), _live(sizes)
        return States(shard * held.stored, 0, 0, live * held.stored)
    return _fully_sharded(strategy, sizes, world_size, held, tensor)


def _replicated(sizes: Sizes, world_size: int, held: Held) -> States:
    gradients = sizes.trainable * held.stored
    return States(
        parameters=sizes.parameters * held.stored,
        gradients=gradients,
        optimizer=ceil(sizes.trainable * held.optimizer),
        gathered=gradients if world_size > 1 else 0,  # the buckets in which they are sent
    )


def _fully_sharded(strategy: str, sizes: Sizes, world_size: int, held: Held, tensor: int) -> States:
    # FSDP1 makes one flat gradient for all that it shards together, frozen or not.
    flat = strategy == "fsdp" and sizes.trainable > 0
    with_gradient = sizes.parameters if flat else sizes.trainable
    block = ceil(sizes.block / tensor)
    block_gradients = block if flat else ceil(sizes.block_trainable / tensor)
    around_gradients = sizes.around if flat else sizes.around_trainable
    # A gradient is computed in half precision, and copied to fp32 to be summed over devices, while
    # that of the block before is on its way.
    on_the_way = held.computed + FP32
    # The block after is gathered meanwhile; what stands around the blocks stays gathered.
    weights = (2 * block + sizes.around) * held.computed
    return States(
        parameters=ceil(sizes.parameters / world_size) * held.stored,
        gradients=ceil(with_gradient / world_size) * held.stored,
        optimizer=ceil(sizes.trainable / world_size * held.optimizer),
        gathered=weights + max(2 * block_gradients, around_gradients) * on_the_way,
    )


def _deepspeed(strategy: str, sizes: Sizes, world_size: int, held: Held) -> States:
    trained = ceil(sizes.trainable / world_size)
    gradients = trained * FP32
    master_and_states = trained * FP32 + ceil(trained * held.optimizer)
    bucket = REDUCE_BUCKET * FP32
    if strategy == "deepspeed_zero2":
        weights = sizes.parameters * held.computed
        return States(weights, gradients, master_and_states, bucket)
    weights = ceil(sizes.parameters / world_size) * held.computed
    live = _live(sizes) * held.computed
    if strategy == "deepspeed_zero3":
        return States(weights, gradients, master_and_states, live + bucket)
    return States(0, 0, 0, live + bucket, host=weights + gradients + master_and_states)


def _live(sizes: Sizes) -> int:
    """Return how many parameters ZeRO-3 may hold gathered."""
    at_least = sizes.around + 2 * sizes.block
    return min(sizes.parameters, max(at_least, MAX_LIVE_PARAMETERS))


def optimizer_bytes(make: Callable[[Iterable[nn.Parameter]], Any], dtype: torch.dtype) -> float:
    """Return the bytes of an optimizer's state for each parameter: steps once, and counts.

    Args:
        make: makes the optimizer of parameters.
        dtype: of the parameters.

    >>> optimizer_bytes(torch.optim.AdamW, torch.float32)
    8.0
    """
    parameter = nn.Parameter(torch.zeros(1024, 1024, dtype=dtype))
    parameter.grad = torch.zeros_like(parameter)
    optimizer = make([parameter])
    # Some compile their step, which for one step takes longer than the step.
    with torch.compiler.set_stance("force_eager"):
        optimizer.step()
    state = optimizer.state[parameter].values()
    # Of a count of steps there is one, however large a parameter is.
    tensors = [each for each in state if isinstance(each, Tensor) and each.numel() > 1]
    return sum(map(_held_bytes, tensors)) / parameter.numel()


def _held_bytes(tensor: Tensor) -> int:
    """Return the bytes of a tensor, or of those that a quantized one is made of."""
    if not is_traceable_wrapper_subclass(tensor):
        return tensor.nbytes
    names, _ = tensor.__tensor_flatten__()
    return sum(_held_bytes(getattr(tensor, name)) for name in names)
