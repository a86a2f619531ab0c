"""How many bytes a device sends in an optimizer step, by strategy: arithmetic, not a measurement.

Collectives are counted as rings, which send the least that each of them can: ``(n-1)/n`` of a
tensor to gather it or to reduce it in shards, twice that to reduce it everywhere. A ring through
nodes leaves each of them by one link; as there are as many rings as devices of a node, each device
carries its share of what leaves, and sends the rest to its neighbour.
"""

from dataclasses import dataclass

from lit_entrodrop.runtime.setting_checks import check_at_least
from lit_entrodrop.training.strategies.names import check_known

# Of a block's activations by a group with tensor parallelism: the outputs of attention and MLP in
# the forward pass; in the backward one, the inputs of the three projections to queries, keys and
# values and of the two into the MLP, each by itself. Recomputing stops short of the last output.
FORWARD_REDUCES, BACKWARD_REDUCES, RECOMPUTED_REDUCES = 2, 5, 1


@dataclass(frozen=True)
class Traffic:
    """Bytes that a device sends, on average over the devices of a node.

    Attributes:
        intra_node: to devices of its own node.
        inter_node: to other nodes.
    """

    intra_node: float
    inter_node: float

    def __add__(self, other: "Traffic") -> "Traffic":
        """Send both."""
        return Traffic(self.intra_node + other.intra_node, self.inter_node + other.inter_node)

    def __mul__(self, times: float) -> "Traffic":
        """Send the same so many times."""
        return Traffic(self.intra_node * times, self.inter_node * times)

    @property
    def total(self) -> float:
        """Bytes that it sends in all."""
        return self.intra_node + self.inter_node


@dataclass(frozen=True)
class Ring:
    """Devices that work on the same tensors, each of them ``stride`` ranks after the one before.

    Args:
        size: devices in the ring.
        stride: ranks from a device to the next.
        devices_per_node: devices of a node, whose ranks follow each other.
    """

    size: int
    stride: int
    devices_per_node: int

    def gather(self, count: float) -> Traffic:
        """Give each device all of a tensor of which it has a shard.

        Args:
            count: bytes of the whole tensor.
        """
        sent = count * (self.size - 1) / self.size
        neighbours = min(self.size, max(1, self.devices_per_node // self.stride))
        leaving = 0.0 if neighbours == self.size else sent / neighbours
        return Traffic(sent - leaving, leaving)

    def reduce_scatter(self, count: float) -> Traffic:
        """Give each device a shard of the sum of their tensors: as much as to gather it."""
        return self.gather(count)

    def all_reduce(self, count: float) -> Traffic:
        """Give each device the sum of their tensors: its shards are summed, then gathered."""
        return self.gather(count) * 2


def step_bytes(
    strategy: str,
    parameters: int,
    world_size: int,
    devices_per_node: int,
    tokens_per_device: int,
    hidden_size: int,
    layers: int,
    tensor_parallel_size: int = 1,
    replicas: int = 1,
    accumulate: int = 1,
    parameters_around: int = 0,
    parameter_bytes: int = 2,
    gradient_bytes: int = 4,
    recomputed: bool = False,
) -> Traffic:
    """Return how many bytes a device sends in an optimizer step of full fine-tuning.

    DeepSpeed's ZeRO-3 is taken to keep nothing between forward and backward: by default it keeps up
    to 1e9 parameters, and so sends less for small models.

    Args:
        strategy: name of a file in ``configs/strategy``.
        parameters: of the model.
        world_size: devices in all.
        devices_per_node: devices of a node.
        tokens_per_device: tokens of a micro-batch of a device; those of a tensor-parallel group
            share it.
        hidden_size: of the model.
        layers: transformer blocks.
        tensor_parallel_size: devices that share out a block; for ``fsdp2_tp``.
        replicas: sharded copies of the model; for ``fsdp2`` and ``fsdp2_tp``.
        accumulate: micro-batches of a step.
        parameters_around: those outside of the blocks, embedding and head among them, which
            ``fsdp2`` and ``fsdp`` keep between forward and backward.
        parameter_bytes: of a number in the forward pass: 2 for ``bf16-mixed``, 4 for ``32-true``.
        gradient_bytes: of a number of a gradient: 4 for both.
        recomputed: with activation checkpointing.

    Returns:
        The bytes that the device sends within its node and out of it.

    Raises:
        ValueError: if the strategy is unknown, or the devices cannot be arranged so.

    >>> sent = step_bytes("ddp", 1_000_000, 8, 8, 4096, 1024, 12)
    >>> sent.intra_node, sent.inter_node
    (7000000.0, 0.0)
    """
    check_at_least(1, parameters=parameters, world_size=world_size, accumulate=accumulate)
    check_at_least(1, devices_per_node=devices_per_node, tensor_parallel_size=tensor_parallel_size)
    check_at_least(1, replicas=replicas)
    _check(strategy, world_size, tensor_parallel_size, replicas)
    everyone = Ring(world_size, 1, devices_per_node)
    weights, gradients = parameters * parameter_bytes, parameters * gradient_bytes
    if strategy == "ddp":
        return everyone.all_reduce(gradients)
    if strategy == "deepspeed_zero2":
        return everyone.all_reduce(gradients) * accumulate + everyone.gather(weights)

    shards = world_size // (replicas * tensor_parallel_size)
    sharing = Ring(shards, tensor_parallel_size, devices_per_node)
    around = Ring(shards * tensor_parallel_size, 1, devices_per_node)
    copies = Ring(replicas, shards * tensor_parallel_size, devices_per_node)
    group = Ring(tensor_parallel_size, 1, devices_per_node)

    share = (parameters - parameters_around) / tensor_parallel_size
    gathers_around = 2 if strategy.startswith("deepspeed") else 1
    micro_batch = (
        sharing.gather(share * parameter_bytes) * 2
        + sharing.reduce_scatter(share * gradient_bytes)
        + around.gather(parameters_around * parameter_bytes) * gathers_around
        + around.reduce_scatter(parameters_around * gradient_bytes)
        + copies.all_reduce(gradients / around.size)
        + group_sums(tokens_per_device, hidden_size, layers, group, parameter_bytes, recomputed)
    )
    return micro_batch * accumulate


def group_sums(
    tokens: int, hidden_size: int, layers: int, group: Ring, number_bytes: int, recomputed: bool
) -> Traffic:
    """Return what tensor parallelism sends for a micro-batch, which the next layer waits for.

    Args:
        tokens: of the micro-batch of a group.
        hidden_size: of the model.
        layers: transformer blocks.
        group: devices that share out a block.
        number_bytes: of a number in the forward pass.
        recomputed: with activation checkpointing.
    """
    per_block = FORWARD_REDUCES + BACKWARD_REDUCES + RECOMPUTED_REDUCES * recomputed
    return group.all_reduce(tokens * hidden_size * number_bytes) * layers * per_block


def _check(strategy: str, world_size: int, tensor_parallel_size: int, replicas: int) -> None:
    check_known(strategy)
    if tensor_parallel_size > 1 and strategy != "fsdp2_tp":
        raise ValueError(
            "tensor_parallel_size: expected 1 unless the strategy is fsdp2_tp, got "
            f"{tensor_parallel_size} for {strategy}: set it to 1, or take fsdp2_tp"
        )
    if replicas > 1 and not strategy.startswith("fsdp2"):
        raise ValueError(
            f"replicas: expected 1 unless the strategy is fsdp2, got {replicas} for {strategy}: "
            "set it to 1, or take fsdp2"
        )
    if world_size % (tensor_parallel_size * replicas):
        raise ValueError(
            "world_size: expected a multiple of tensor_parallel_size x replicas, "
            f"{tensor_parallel_size} x {replicas}, got {world_size}: change one of them"
        )
