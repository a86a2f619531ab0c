"""Duration of a training step, estimated from FLOPS and bytes sent."""

from lit_entrodrop.commands.plan.estimates.communication import Traffic
from lit_entrodrop.model.hardware import Hardware
from lit_entrodrop.model.sizes import Sizes

# Share of the computing time that collectives can overlap with. Nothing overlaps with the first
# gather and the last reduction of a step, or with the part of one that outlasts its block.
OVERLAP = 0.8
# Bytes per second at which the optimizer of one machine reads and writes host memory: a share of
# the 200 to 300 GB/s of a socket, as other processes use it too.
HOST_MEMORY_BANDWIDTH = 100e9


def compute_seconds(
    flops_per_token: float, tokens_per_device: float, utilization: float, hardware: Hardware
) -> float:
    """Return the seconds of a step in which a device computes at a share of its peak FLOPS."""
    return flops_per_token * tokens_per_device / (utilization * hardware.peak_flops)


def exposed_seconds(sent: Traffic, blocking: Traffic, compute: float, hardware: Hardware) -> float:
    """Return the seconds of a step's communication that do not overlap with computing.

    Args:
        sent: Traffic of a step.
        blocking: Part of it that the next layer waits for: all-reduces of tensor parallelism.
        compute: Seconds in which the device computes.
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
    ``optimizer_bytes`` counts its state per trainable parameter.
    """
    shard, trained = sizes.parameters / world_size, sizes.trainable / world_size
    moved = accumulate * (2 * 2 * shard + 4 * trained) + 2 * trained
    stepped = trained * (2 * (4 + optimizer_bytes) + 4 + 2)
    devices = min(world_size, hardware.devices_per_node)
    return moved / hardware.host_bandwidth + stepped * devices / HOST_MEMORY_BANDWIDTH
