"""Cost of an optimizer step at the shape of Llama-3.1-8B under each strategy, by arithmetic."""

from dataclasses import dataclass
from functools import cache

from benchmarks.gpu_campaign.sizes import ARCHITECTURES
from benchmarks.live_fit import TOKENIZER
from lit_entrodrop.commands.plan.estimates.communication import Traffic, step_bytes
from lit_entrodrop.commands.plan.estimates.model_memory import NumberBytes, model_memory
from lit_entrodrop.commands.plan.estimates.speed import OVERLAP, compute_seconds
from lit_entrodrop.model.building import build_on_meta
from lit_entrodrop.model.config import LMConfig
from lit_entrodrop.model.flops import training_flops_per_token
from lit_entrodrop.model.hardware import GB, find_hardware
from lit_entrodrop.model.sizes import Sizes, sizes_of

LLAMA = LMConfig(
    pretrained=None,
    architecture=ARCHITECTURES["llama3.1-8b"],
    tokenizer=TOKENIZER,
    activation_checkpointing=True,
)
LENGTH = 4096
MFU = 0.4
HOP = 5e-6
ZERO2_BUCKET = 500_000_000  # numbers, DeepSpeed's default
GPU = find_hardware("h100")


@dataclass(frozen=True)
class Arrangement:
    """A strategy and its arrangement of devices.

    Args:
        name: Name in tables and figure.
        strategy: Name of a file in ``configs/strategy``.
        tensor: Size of a tensor-parallel group.
        sharded_over: Number of devices per copy of the model; None for all.
    """

    name: str
    strategy: str
    tensor: int = 1
    sharded_over: int | None = None

    def replicas(self, devices: int) -> int:
        """Return the number of copies of the model."""
        return devices // self.sharded_over if self.sharded_over else 1


ARRANGEMENTS = (
    Arrangement("DDP", "ddp"),
    Arrangement("ZeRO-2", "deepspeed_zero2"),
    Arrangement("ZeRO-3", "deepspeed_zero3"),
    Arrangement("FSDP2", "fsdp2"),
    Arrangement("HSDP of 8", "fsdp2", sharded_over=8),
    Arrangement("FSDP2 + TP 2", "fsdp2_tp", tensor=2),
    Arrangement("FSDP2 + TP 8", "fsdp2_tp", tensor=8),
)


@dataclass(frozen=True)
class Step:
    """An optimizer step on some devices.

    Args:
        arrangement: Arrangement of the devices.
        devices: Total number of devices.
        tokens: Tokens of a micro-batch per device; a tensor-parallel group processes the tokens of
            all its devices.
        accumulate: Micro-batches per step.
    """

    arrangement: Arrangement
    devices: int
    tokens: int
    accumulate: int = 1

    @property
    def state_gb(self) -> float:
        """Memory of a device for the states of the model, GB."""
        own = self.arrangement
        over = self.devices // own.replicas(self.devices)
        return model_memory(own.strategy, sizes(), over, NumberBytes(), own.tensor).device / GB

    @property
    def sent(self) -> Traffic:
        """Bytes that a device sends per step."""
        return self._sent(self.tokens)

    @property
    def compute(self) -> float:
        """Computation time of a step, seconds."""
        return compute_seconds(flops_per_token(), self.tokens * self.accumulate, MFU, GPU)

    @property
    def communication(self) -> float:
        """Communication time of a step without overlap, seconds."""
        return self._hidable + self._awaited

    @property
    def efficiency(self) -> float:
        """Share of a step in which devices compute."""
        exposed = self._awaited + max(0.0, self._hidable - OVERLAP * self.compute)
        return self.compute / (self.compute + exposed)

    def _sent(self, tokens: int) -> Traffic:
        own = self.arrangement
        return step_bytes(
            own.strategy,
            sizes(),
            self.devices,
            GPU.devices_per_node,
            tokens * own.tensor,
            own.tensor,
            own.replicas(self.devices),
            self.accumulate,
            recomputed=True,
        )

    @property
    def _hidable(self) -> float:
        return _seconds(self._sent(0)) + HOP * self._hops * self.accumulate

    @property
    def _awaited(self) -> float:
        """Time for the reductions of activations in a tensor-parallel group, seconds."""
        hops = 8 * sizes().layers * 2 * (self.arrangement.tensor - 1) * self.accumulate
        return _seconds(self.sent) - _seconds(self._sent(0)) + HOP * hops

    @property
    def _hops(self) -> int:
        own, everyone = self.arrangement, self.devices - 1
        buckets = -(-sizes().parameters // ZERO2_BUCKET)
        if own.strategy in ("ddp", "deepspeed_zero2"):
            return 3 * buckets * everyone
        copies = own.replicas(self.devices)
        units = sizes().layers + 1
        shards = self.devices // (copies * own.tensor)
        return 3 * units * (shards - 1) + 2 * units * (copies - 1)


def _seconds(sent: Traffic) -> float:
    intra = sent.intra_node / GPU.intra_node_bandwidth
    return intra + sent.inter_node / GPU.inter_node_bandwidth


@cache
def sizes() -> Sizes:
    """Return the sizes of the model."""
    return sizes_of(build_on_meta(LLAMA))


@cache
def flops_per_token() -> float:
    """Return the training operations per token."""
    return training_flops_per_token(build_on_meta(LLAMA), LENGTH)
