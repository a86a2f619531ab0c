"""Bytes that a device sends in an optimizer step, computed for each strategy.

Collectives count as rings, which send the least possible: ``(n-1)/n`` of a tensor for an
all-gather or a reduce-scatter, twice that for an all-reduce. A ring over several nodes leaves each
of them by one link. There are as many rings as devices in a node, so each device sends its share
of the traffic out of the node, and the rest to its neighbor.
"""

from dataclasses import dataclass

from lit_entrodrop.commands.plan.estimates.model_memory import check_known
from lit_entrodrop.model.sizes import Sizes
from lit_entrodrop.runtime.setting_checks import check_at_least

# All-reduces of a block's activations under tensor parallelism. Forward: outputs of attention and
# MLP. Backward: inputs of the query, key and value projections and of the two projections into the
# MLP, each separately. Recomputation stops before the last output.
FORWARD_REDUCES, BACKWARD_REDUCES, RECOMPUTED_REDUCES = 2, 5, 1


@dataclass(frozen=True)
class Traffic:
    """Bytes that a device sends, on average over the devices of a node.

    Args:
        intra_node: Bytes to devices of the same node.
        inter_node: Bytes to other nodes.
    """

    intra_node: float
    inter_node: float

    def __add__(self, other: "Traffic") -> "Traffic":
        return Traffic(self.intra_node + other.intra_node, self.inter_node + other.inter_node)

    def __mul__(self, times: float) -> "Traffic":
        return Traffic(self.intra_node * times, self.inter_node * times)


@dataclass(frozen=True)
class Ring:
    """Ring of ``size`` devices that run a collective; neighbors are ``stride`` ranks apart.

    >>> Ring(size=8, stride=1, devices_per_node=8).gather(800)
    Traffic(intra_node=700.0, inter_node=0.0)
    """

    size: int
    stride: int
    devices_per_node: int

    def gather(self, count: float) -> Traffic:
        """Return the traffic of an all-gather or a reduce-scatter of ``count`` bytes."""
        sent = count * (self.size - 1) / self.size
        neighbors = min(self.size, max(1, self.devices_per_node // self.stride))
        leaving = 0.0 if neighbors == self.size else sent / neighbors
        return Traffic(sent - leaving, leaving)

    def all_reduce(self, count: float) -> Traffic:
        """Return the traffic of an all-reduce: a reduce-scatter, then an all-gather."""
        return self.gather(count) * 2


def step_bytes(
    strategy: str,
    sizes: Sizes,
    world_size: int,
    devices_per_node: int,
    tokens_per_device: int,
    tensor_parallel_size: int = 1,
    replicas: int = 1,
    accumulate: int = 1,
    parameter_bytes: int = 2,
    gradient_bytes: int = 4,
    recomputed: bool = False,
) -> Traffic:
    """Return the bytes that a device sends in an optimizer step of full fine-tuning.

    DeepSpeed's ZeRO-3 counts as if it kept no gathered parameters between forward and backward. By
    default it keeps up to 1e9, and so sends less for small models. ``fsdp2`` keeps parameters
    outside of the blocks gathered.

    Args:
        strategy: Name of a file in ``configs/strategy``.
        sizes: Parameter counts of the model.
        world_size: Total number of devices.
        devices_per_node: Number of devices in a node.
        tokens_per_device: Number of tokens in a micro-batch of a device, or of a tensor-parallel
            group, which shares one.
        tensor_parallel_size: Number of devices that share each block; for ``fsdp2_tp``.
        replicas: Number of sharded copies of the model; for ``fsdp2`` and ``fsdp2_tp``.
        accumulate: Number of micro-batches in a step.
        parameter_bytes: Bytes per parameter in the forward pass: 4 for ``32-true``.
        gradient_bytes: Bytes per element of a gradient.
        recomputed: Whether activation checkpointing is on.

    Raises:
        ValueError: If the strategy is unknown, or does not support this number of devices.
    """
    check_at_least(1, world_size=world_size, accumulate=accumulate, replicas=replicas)
    check_at_least(1, devices_per_node=devices_per_node, tensor_parallel_size=tensor_parallel_size)
    _check(strategy, world_size, tensor_parallel_size, replicas)
    everyone = Ring(world_size, 1, devices_per_node)
    weights, gradients = sizes.parameters * parameter_bytes, sizes.parameters * gradient_bytes
    if strategy == "ddp":
        return everyone.all_reduce(gradients)
    if strategy == "deepspeed_zero2":
        return everyone.all_reduce(gradients) * accumulate + everyone.gather(weights)

    shards = world_size // (replicas * tensor_parallel_size)
    sharing = Ring(shards, tensor_parallel_size, devices_per_node)
    around = Ring(shards * tensor_parallel_size, 1, devices_per_node)
    copies = Ring(replicas, shards * tensor_parallel_size, devices_per_node)
    group = Ring(tensor_parallel_size, 1, devices_per_node)

    share = (sizes.parameters - sizes.around) / tensor_parallel_size
    gathers_around = 2 if strategy.startswith("deepspeed") else 1
    micro_batch = (
        sharing.gather(share * parameter_bytes) * 2
        + sharing.gather(share * gradient_bytes)
        + around.gather(sizes.around * parameter_bytes) * gathers_around
        + around.gather(sizes.around * gradient_bytes)
        + copies.all_reduce(gradients / around.size)
        + group_sums(tokens_per_device, sizes, group, parameter_bytes, recomputed)
    )
    return micro_batch * accumulate


def group_sums(
    tokens: int, sizes: Sizes, group: Ring, number_bytes: int, recomputed: bool
) -> Traffic:
    """Return the all-reduces of tensor parallelism in a micro-batch, which block the next layer."""
    per_block = FORWARD_REDUCES + BACKWARD_REDUCES + RECOMPUTED_REDUCES * recomputed
    return group.all_reduce(tokens * sizes.hidden_size * number_bytes) * sizes.layers * per_block


def _check(strategy: str, world_size: int, tensor_parallel_size: int, replicas: int) -> None:
    check_known(strategy)
    if tensor_parallel_size > 1 and strategy != "fsdp2_tp":
        raise ValueError(
            "tensor_parallel_size: expected 1 unless the strategy is fsdp2_tp, got "
            f"{tensor_parallel_size} for {strategy}: set it to 1, or use fsdp2_tp"
        )
    if replicas > 1 and not strategy.startswith("fsdp2"):
        raise ValueError(
            f"replicas: expected 1 unless the strategy is fsdp2, got {replicas} for {strategy}: "
            "set it to 1, or use fsdp2"
        )
    if world_size % (tensor_parallel_size * replicas):
        raise ValueError(
            "world_size: expected a multiple of tensor_parallel_size x replicas, "
            f"{tensor_parallel_size} x {replicas}, got {world_size}: change one of them"
        )
