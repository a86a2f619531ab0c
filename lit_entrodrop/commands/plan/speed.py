"""Training speed and cost, estimated from FLOPS and bytes sent."""

from dataclasses import dataclass
from math import ceil

from lit_entrodrop.commands.plan.communication import Traffic
from lit_entrodrop.model.hardware import Hardware
from lit_entrodrop.model.sizes import Sizes

# Share of the computing time that collectives can overlap with. The first gather and the last
# reduction of a step overlap with nothing, nor does the rest of one that outlasts its block.
OVERLAP = 0.8
# Bytes per second at which the optimizer of one machine reads and writes host memory: a share of
# the 200 to 300 GB/s of a socket, as other processes use it too.
HOST_MEMORY_BANDWIDTH = 100e9
DAY = 24 * 60 * 60  # seconds


@dataclass(frozen=True)
class Speed:
    """Training speed of a run.

    Args:
        step_seconds: Duration of an optimizer step, in seconds.
        tokens_per_step: Number of tokens in a step, over all devices.
        world_size: Total number of devices.
    """

    step_seconds: float
    tokens_per_step: int
    world_size: int

    @property
    def tokens_per_second(self) -> float:
        """Tokens per second of all devices together."""
        return self.tokens_per_step / self.step_seconds

    @property
    def tokens_per_device(self) -> float:
        """Tokens per second of each device."""
        return self.tokens_per_second / self.world_size

    def steps(self, tokens: float) -> int:
        """Return the number of optimizer steps for a number of tokens."""
        return ceil(tokens / self.tokens_per_step)

    def days(self, tokens: float) -> float:
        """Return the duration of training on a number of tokens, in days.

        >>> Speed(step_seconds=1.0, tokens_per_step=1000, world_size=2).days(86_400_000)
        1.0
        """
        return self.steps(tokens) * self.step_seconds / DAY

    def cost(self, tokens: float, price_per_hour: float) -> float:
        """Return the price of training on a number of tokens, given the price of a device-hour."""
        return self.days(tokens) * 24 * self.world_size * price_per_hour


def compute_seconds(
    flops_per_token: float, tokens_per_device: float, mfu: float, hardware: Hardware
) -> float:
    """Return the time that a device computes in a step, in seconds.

    Args:
        flops_per_token: Floating-point operations of forward and backward pass.
        tokens_per_device: Number of tokens in a step of each device.
        mfu: Share of the peak FLOPS that the device reaches.
        hardware: Machine of the device.
    """
    return flops_per_token * tokens_per_device / (mfu * hardware.peak_flops)


def exposed_seconds(sent: Traffic, blocking: Traffic, compute: float, hardware: Hardware) -> float:
    """Return the time of communication that does not overlap with computing, in seconds.

    Args:
        sent: Traffic of a step.
        blocking: Part of it that the next layer waits for: all-reduces of tensor parallelism.
        compute: Time that the device computes in a step, in seconds.
        hardware: Machine of the device.
    """
    waiting = sending_seconds(blocking, hardware)
    overlapping = sending_seconds(sent, hardware) - waiting
    return waiting + max(0.0, overlapping - OVERLAP * compute)


def sending_seconds(sent: Traffic, hardware: Hardware) -> float:
    """Return the time that sending takes without overlap, in seconds."""
    within = sent.intra_node / hardware.intra_node_bandwidth
    return within + sent.inter_node / hardware.inter_node_bandwidth


def offload_seconds(
    sizes: Sizes, world_size: int, accumulate: int, optimizer_bytes: float, hardware: Hardware
) -> float:
    """Return the time that offloading adds to a step, in seconds.

    A device reads its shard for each pass of a micro-batch and sends gradients back in fp32. The
    optimizer then reads and writes master weights and states, and reads gradients.

    Args:
        sizes: Parameter counts of the model.
        world_size: Total number of devices.
        accumulate: Number of micro-batches in a step.
        optimizer_bytes: Bytes of optimizer state per trainable parameter.
        hardware: Machine of the devices.
    """
    shard, trained = sizes.parameters / world_size, sizes.trainable / world_size
    moved = accumulate * (2 * 2 * shard + 4 * trained) + 2 * trained
    stepped = trained * (2 * (4 + optimizer_bytes) + 4 + 2)
    devices = min(world_size, hardware.devices_per_node)
    return moved / hardware.host_bandwidth + stepped * devices / HOST_MEMORY_BANDWIDTH
