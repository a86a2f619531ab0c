"""How long training takes, from operations and bytes: an estimate under stated assumptions."""

from dataclasses import dataclass
from math import ceil

from lit_entrodrop.commands.plan.communication import Traffic
from lit_entrodrop.model.hardware import Hardware
from lit_entrodrop.model.sizes import Sizes

# Share of the time of computing under which collectives can hide: the first gather and the last
# reduction of a step have nothing to hide under, nor has what outlasts the block beside it.
OVERLAP = 0.8
# Bytes per second at which the optimizer of one machine goes through host memory: a share of the
# 200 to 300 GB/s of a socket, as its kernels are not the only ones that read.
HOST_MEMORY_BANDWIDTH = 100e9
DAY = 24 * 60 * 60  # seconds


@dataclass(frozen=True)
class Speed:
    """How fast a run trains.

    Args:
        step_seconds: of an optimizer step.
        tokens_per_step: over all devices.
        world_size: devices in all.
    """

    step_seconds: float
    tokens_per_step: int
    world_size: int

    @property
    def tokens_per_second(self) -> float:
        """Tokens of all devices together."""
        return self.tokens_per_step / self.step_seconds

    @property
    def tokens_per_device(self) -> float:
        """Tokens per second, for each device."""
        return self.tokens_per_second / self.world_size

    def steps(self, tokens: float) -> int:
        """Return the optimizer steps that so many tokens take."""
        return ceil(tokens / self.tokens_per_step)

    def days(self, tokens: float) -> float:
        """Return the days that so many tokens take.

        >>> Speed(step_seconds=1.0, tokens_per_step=1000, world_size=2).days(86_400_000)
        1.0
        """
        return self.steps(tokens) * self.step_seconds / DAY

    def cost(self, tokens: float, price_per_hour: float) -> float:
        """Return what so many tokens cost, at the price of a device and hour."""
        return self.days(tokens) * 24 * self.world_size * price_per_hour


def compute_seconds(
    flops_per_token: float, tokens_per_device: float, mfu: float, hardware: Hardware
) -> float:
    """Return how long a device computes.

    Args:
        flops_per_token: operations of forward and backward pass.
        tokens_per_device: of a step, for each device.
        mfu: share of the peak that is reached.
        hardware: of the device.
    """
    return flops_per_token * tokens_per_device / (mfu * hardware.peak_flops)


def exposed_seconds(sent: Traffic, awaited: Traffic, compute: float, hardware: Hardware) -> float:
    """Return how long a device waits for others: what does not hide under its computing.

    Args:
        sent: what it sends in a step.
        awaited: that part of it which the next layer waits for: the sums of tensor parallelism.
        compute: seconds for which it computes in a step.
        hardware: of the device.
    """
    waiting = sending_seconds(awaited, hardware)
    hiding = sending_seconds(sent, hardware) - waiting
    return waiting + max(0.0, hiding - OVERLAP * compute)


def sending_seconds(sent: Traffic, hardware: Hardware) -> float:
    """Return how long sending takes."""
    within = sent.intra_node / hardware.intra_node_bandwidth
    return within + sent.inter_node / hardware.inter_node_bandwidth


def offload_seconds(
    sizes: Sizes, world_size: int, accumulate: int, optimizer_bytes: float, hardware: Hardware
) -> float:
    """Return how long a step takes to move what lies in host memory, and to step there.

    A device reads its shard for each pass of a micro-batch and sends gradients back in fp32; then
    the optimizer reads and writes master weights and states, and reads gradients.

    Args:
        sizes: of the model.
        world_size: devices in all.
        accumulate: micro-batches of a step.
        optimizer_bytes: of the optimizer's state, for each trainable parameter.
        hardware: of the machine.
    """
    shard, trained = sizes.parameters / world_size, sizes.trainable / world_size
    moved = accumulate * (2 * 2 * shard + 4 * trained) + 2 * trained
    stepped = trained * (2 * (4 + optimizer_bytes) + 4 + 2)
    devices = min(world_size, hardware.devices_per_node)
    return moved / hardware.host_bandwidth + stepped * devices / HOST_MEMORY_BANDWIDTH
