"""The ways to train one model on some devices, what each of them needs, and how fast it is."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property

from lit_entrodrop.commands.plan.activations import DryRun, dry_run
from lit_entrodrop.commands.plan.communication import Ring, Traffic, group_sums, step_bytes
from lit_entrodrop.commands.plan.job import Job
from lit_entrodrop.commands.plan.speed import (
    Speed,
    compute_seconds,
    exposed_seconds,
    offload_seconds,
)
from lit_entrodrop.commands.plan.states import States, states
from lit_entrodrop.model.building import build_on_meta
from lit_entrodrop.model.hardware import GB, Hardware
from lit_entrodrop.model.sizes import Sizes, sizes_of
from lit_entrodrop.training.strategies.names import STRATEGIES
from lit_entrodrop.training.strategies.tensor_parallel import check_plan

OFFLOAD = "deepspeed_zero3_offload"
MARGIN = 0.1  # share of a memory that is left free


@dataclass(frozen=True)
class Option:
    """One way to train.

    Args:
        strategy: one of ``STRATEGIES``.
        world_size: devices in all.
        tensor_parallel_size: devices that share out a block.
        batch_size: rows of a micro-batch of one device.
        accumulate: micro-batches of a step.
        activation_checkpointing: whether blocks are computed again in the backward pass.
        states: bytes of the model.
        activations: bytes of a step, beside the model.
        head: those of them that the loss head takes.
        speed: of training.
        hardware: that it runs on.
    """

    strategy: str
    world_size: int
    tensor_parallel_size: int
    batch_size: int
    accumulate: int
    activation_checkpointing: bool
    states: States
    activations: int
    head: int
    speed: Speed
    hardware: Hardware

    @property
    def device_gb(self) -> float:
        """What a device holds at its peak."""
        return (self.states.device + self.activations) / GB

    @property
    def devices(self) -> int:
        """Devices of each machine."""
        return min(self.world_size, self.hardware.devices_per_node)

    @property
    def num_nodes(self) -> int:
        """Machines."""
        return self.world_size // self.devices

    @property
    def host_gb(self) -> float:
        """What the devices of a machine keep in host memory."""
        return self.states.host * self.devices / GB

    @property
    def fits(self) -> bool:
        """Whether that leaves the margin."""
        return self.host_gb <= (1 - MARGIN) * self.hardware.host_memory_gb and (
            self.device_gb <= (1 - MARGIN) * self.hardware.memory_gb
        )

    @property
    def device_seconds(self) -> float:
        """Seconds of a step times devices, which is what costs."""
        return self.speed.step_seconds * self.world_size

    @property
    def name(self) -> str:
        """The strategy, and how many devices share a block if they do."""
        shared = f" ({self.tensor_parallel_size})" if self.tensor_parallel_size > 1 else ""
        return self.strategy + shared


class Options:
    """All ways to do a job on one kind of hardware.

    Args:
        job: what to train.
        hardware: on what.
        mfu: share of the peak of operations that devices reach while they compute.
    """

    def __init__(self, job: Job, hardware: Hardware, mfu: float) -> None:
        self.job = job
        self.hardware = hardware
        self.mfu = mfu
        self._causal_lm = build_on_meta(replace(job.lm, compile=False))
        self._dry_runs: dict[tuple[str, int, bool], DryRun] = {}

    @cached_property
    def sizes(self) -> Sizes:
        """Of the model."""
        return sizes_of(self._causal_lm)

    def on(self, world_size: int) -> list[Option]:
        """Return the best way by each strategy, whether it fits or not.

        Args:
            world_size: devices in all.

        Raises:
            ValueError: if they do not fill their machines.
        """
        per_node = self.hardware.devices_per_node
        if world_size < 1 or (world_size > per_node and world_size % per_node):
            raise ValueError(
                f"world_size: expected up to {per_node} devices, or a multiple of {per_node}, one "
                f"{self.hardware.name} machine, got {world_size}: change it"
            )
        found = (
            self._best(name, world_size, size) for name, size in self._arrangements(world_size)
        )
        return [option for option in found if option is not None]

    def _arrangements(self, world_size: int) -> Iterator[tuple[str, int]]:
        """Yield strategies and how many devices share out a block."""
        for strategy in STRATEGIES:
            alone = strategy in ("ddp", OFFLOAD)
            # DeepSpeed and tensor parallelism refuse fp16.
            scaled = self.job.precision == "16-mixed" and strategy not in ("ddp", "fsdp2", "fsdp")
            # Their optimizers hold weights in a form of which no teacher takes an average.
            averaged = self.job.demands.required.teacher is not None
            other = averaged and strategy not in ("ddp", "fsdp2", "fsdp2_tp")
            if (world_size == 1 and not alone) or scaled or other:
                continue
            if strategy != "fsdp2_tp":
                yield strategy, 1
                continue
            shared = (size for size in (2, 4, 8) if world_size % size == 0)
            yield from ((strategy, size) for size in shared if self._can_be_shared_by(size))

    def _can_be_shared_by(self, size: int) -> bool:
        if size > self.hardware.devices_per_node:
            return False
        try:
            check_plan(self._causal_lm.unwrapped, size)
        except ValueError:
            return False
        return True

    def _best(self, strategy: str, world_size: int, tensor: int) -> Option | None:
        """Return the fastest that fits, or else the smallest; None if batches cannot be dealt."""
        rows, rest = divmod(self.job.global_batch_size * tensor, world_size)
        if rest or not rows:
            return None
        sizes = [n for n in range(min(rows, self.job.batch_size), 0, -1) if rows % n == 0]
        held = self._states(strategy, world_size, tensor)
        if held.device > (1 - MARGIN) * self.hardware.memory_gb * GB:
            # It will not fit: the least that it can take shows by how much.
            return self._option(strategy, world_size, tensor, sizes[-1], rows // sizes[-1], True)
        fitting = []
        for recomputing in (False, True):
            for size in sizes:
                option = self._option(strategy, world_size, tensor, size, rows // size, recomputing)
                if option.fits:
                    fitting.append(option)
                    break
        return min(fitting, key=lambda each: each.device_seconds) if fitting else option

    def _option(
        self,
        strategy: str,
        world_size: int,
        tensor: int,
        batch_size: int,
        accumulate: int,
        recomputing: bool,
    ) -> Option:
        job, hardware = self.job, self.hardware
        run = self._dry_run(strategy, batch_size, recomputing)
        tokens = batch_size * accumulate * job.block_size
        compute = compute_seconds(run.flops_per_token / tensor, tokens, self.mfu, hardware)
        sent = self._traffic(strategy, world_size, tensor, batch_size, accumulate, recomputing)
        awaited = self._awaited(tensor, batch_size, accumulate, recomputing)
        seconds = compute + exposed_seconds(sent, awaited, compute, hardware)
        if strategy == OFFLOAD:
            seconds += offload_seconds(self.sizes, world_size, accumulate, job.optimizer, hardware)
        return Option(
            strategy,
            world_size,
            tensor,
            batch_size,
            accumulate,
            recomputing,
            self._states(strategy, world_size, tensor),
            run.activation_bytes,
            run.head_bytes,
            Speed(seconds, job.global_batch_size * job.block_size, world_size),
            hardware,
        )

    def _states(self, strategy: str, world_size: int, tensor: int) -> States:
        job = self.job
        return states(strategy, self.sizes, world_size, job.held, tensor, job.frozen)

    def _traffic(
        self,
        strategy: str,
        world_size: int,
        tensor: int,
        batch_size: int,
        accumulate: int,
        recomputing: bool,
    ) -> Traffic:
        sizes, held = self.sizes, self.job.held

        def with_gradients(number_bytes: int) -> Traffic:
            return step_bytes(
                strategy,
                sizes.parameters,
                world_size,
                self.hardware.devices_per_node,
                batch_size * self.job.block_size,
                sizes.hidden_size,
                sizes.layers,
                tensor_parallel_size=tensor,
                accumulate=accumulate,
                parameters_around=sizes.around,
                parameter_bytes=held.computed,
                gradient_bytes=number_bytes,
                recomputed=recomputing,
            )

        # Of adapters alone there are gradients.
        share = sizes.trainable / sizes.parameters
        gradient = held.stored if strategy == "ddp" else 4
        weights = with_gradients(0)
        once = weights * (1 - share) + with_gradients(gradient) * share
        return once + weights * (self.job.demands.passes - 1)

    def _awaited(self, tensor: int, batch_size: int, accumulate: int, recomputing: bool) -> Traffic:
        return (
            group_sums(
                batch_size * self.job.block_size,
                self.sizes.hidden_size,
                self.sizes.layers,
                Ring(tensor, 1, self.hardware.devices_per_node),
                self.job.held.computed,
                recomputing,
            )
            * accumulate
            * self.job.demands.passes
        )

    def _dry_run(self, strategy: str, batch_size: int, recomputing: bool) -> DryRun:
        # Whatever shards hands out weights in the dtype of the arithmetic already.
        dtype = self.job.lm.dtype
        if strategy != "ddp" and dtype == "float32":
            dtype = "float16" if self.job.precision == "16-mixed" else "bfloat16"
        key = dtype, batch_size, recomputing
        if key not in self._dry_runs:
            lm = replace(self.job.lm, dtype=dtype, activation_checkpointing=recomputing)
            self._dry_runs[key] = dry_run(
                lm,
                batch_size,
                self.job.block_size,
                self.job.precision,
                demands=self.job.demands,
            )
        return self._dry_runs[key]


def cheapest(options: list[Option]) -> Option | None:
    """Return the option that costs least; within 5 %, the fewest devices, then the simplest.

    Args:
        options: of which those that do not fit are left out.
    """
    fitting = [option for option in options if option.fits]
    if not fitting:
        return None
    least = min(option.device_seconds for option in fitting)
    close = [option for option in fitting if option.device_seconds <= 1.05 * least]
    return min(
        close,
        key=lambda each: (
            each.world_size,
            STRATEGIES.index(each.strategy),
            each.activation_checkpointing,
        ),
    )
