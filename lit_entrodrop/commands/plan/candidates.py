"""Candidate setups of a training run, their requirements, and the choice among them."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil

from lit_entrodrop.commands.plan.estimates.model_memory import STRATEGIES, ModelMemory
from lit_entrodrop.model.hardware import GB, Hardware

MARGIN = 0.1  # share of each memory that stays free
DAY = 24 * 60 * 60  # seconds


@dataclass(frozen=True)
class TrainingSetup:
    """Strategy, devices and batches of a training run."""

    strategy: str  # one of STRATEGIES
    world_size: int
    tensor_parallel_size: int  # devices that share each block
    batch_size: int  # rows in a micro-batch of one device
    accumulate: int  # micro-batches in a step
    activation_checkpointing: bool

    @property
    def name(self) -> str:
        """Strategy, with the number of devices that share a block if it is above 1."""
        shared = f" ({self.tensor_parallel_size})" if self.tensor_parallel_size > 1 else ""
        return self.strategy + shared


@dataclass(frozen=True)
class Candidate(TrainingSetup):
    """Setup with its estimated memory and speed on some hardware."""

    memory: ModelMemory
    activations: int  # bytes of a step beyond the model
    head: int  # part of `activations` that the loss head takes
    step_seconds: float  # duration of an optimizer step
    tokens_per_step: int  # over all devices
    model_flops_per_token: float  # without recomputation
    hardware: Hardware

    @property
    def device_gb(self) -> float:
        """Peak memory of a device, in GB."""
        return (self.memory.device + self.activations) / GB

    @property
    def devices(self) -> int:
        """Number of devices used on each machine."""
        return min(self.world_size, self.hardware.devices_per_node)

    @property
    def num_nodes(self) -> int:
        """Number of machines."""
        return self.world_size // self.devices

    @property
    def host_gb(self) -> float:
        """Host memory that the devices of a machine use, in GB."""
        return self.memory.host * self.devices / GB

    @property
    def fits(self) -> bool:
        """Whether it fits into device and host memory, with the margin."""
        return self.host_gb <= (1 - MARGIN) * self.hardware.host_memory_gb and (
            self.device_gb <= (1 - MARGIN) * self.hardware.memory_gb
        )

    @property
    def device_seconds(self) -> float:
        """Cost of a step: its seconds times the number of devices."""
        return self.step_seconds * self.world_size

    @property
    def tokens_per_second(self) -> float:
        """Tokens per second of all devices together."""
        return self.tokens_per_step / self.step_seconds

    @property
    def mfu(self) -> float:
        """MFU that a run would log in ``throughput.csv``."""
        peak = self.hardware.peak_flops * self.world_size
        return self.tokens_per_second * self.model_flops_per_token / peak

    def days(self, tokens: float) -> float:
        """Return the duration of training on a number of tokens, in days."""
        return ceil(tokens / self.tokens_per_step) * self.step_seconds / DAY

    def cost(self, tokens: float, price_per_hour: float) -> float:
        """Return the price of training on a number of tokens, given the price of a device-hour."""
        return self.days(tokens) * 24 * self.world_size * price_per_hour


def cheapest(candidates: Sequence[Candidate]) -> Candidate | None:
    """Return the candidate of lowest cost that fits, or None if none fits.

    Among those within 5 % of the lowest cost, the one with the fewest devices wins, and then the
    simplest strategy.
    """
    fitting = [candidate for candidate in candidates if candidate.fits]
    if not fitting:
        return None
    least = min(candidate.device_seconds for candidate in fitting)
    close = [candidate for candidate in fitting if candidate.device_seconds <= 1.05 * least]
    return min(
        close,
        key=lambda each: (
            each.world_size,
            STRATEGIES.index(each.strategy),
            each.activation_checkpointing,
        ),
    )


def best_of(candidates: Sequence[Candidate]) -> Candidate:
    """Return the cheapest candidate that fits, or the one of least memory if none fits."""
    return cheapest(candidates) or min(candidates, key=usage)


def usage(candidate: Candidate) -> float:
    """Return the share of the device or host memory that a candidate uses, whichever is larger."""
    hardware = candidate.hardware
    return max(
        candidate.device_gb / hardware.memory_gb, candidate.host_gb / hardware.host_memory_gb
    )
