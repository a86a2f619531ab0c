"""Enumeration of candidate setups of a training run, with their memory and speed."""

from collections.abc import Iterator
from dataclasses import replace

from lit_entrodrop.commands.plan.candidates import MARGIN, Candidate, TrainingSetup
from lit_entrodrop.commands.plan.estimates.activations import DryRun, dry_run
from lit_entrodrop.commands.plan.estimates.communication import (
    Ring,
    Traffic,
    group_sums,
    step_bytes,
)
from lit_entrodrop.commands.plan.estimates.model_memory import STRATEGIES, ModelMemory, model_memory
from lit_entrodrop.commands.plan.estimates.speed import (
    compute_seconds,
    exposed_seconds,
    offload_seconds,
)
from lit_entrodrop.commands.plan.workload import Workload
from lit_entrodrop.model.flops import training_flops_per_token
from lit_entrodrop.model.hardware import GB, Hardware
from lit_entrodrop.model.sizes import sizes_of
from lit_entrodrop.training.strategies.tensor_parallel import check_plan

OFFLOAD = "deepspeed_zero3_offload"


# HFU without a measurement: 45 to 50 % are a realistic ceiling of large models in bf16.
USUAL_HFU = 0.4


class Planner:
    """Enumerates candidates for a workload on some hardware.

    All candidates reach the same HFU while they compute, so one that recomputes activations has a
    lower MFU.

    Args:
        workload: The workload.
        hardware: Machine of the devices.
        mfu: MFU of the configured run on one device, as in its ``throughput.csv``; None for an HFU
            of 40 %.

    Raises:
        ValueError: If the model cannot be built, or the MFU requires more than the peak.
    """

    def __init__(self, workload: Workload, hardware: Hardware, mfu: float | None = None) -> None:
        self.workload = workload
        self.hardware = hardware
        self.causal_lm = workload.build_on_meta()
        self.sizes = sizes_of(self.causal_lm)
        self.model_flops_per_token = training_flops_per_token(
            self.causal_lm, workload.block_size, workload.extra_passes.required
        )
        self._dry_runs: dict[tuple[str, int, bool], DryRun] = {}
        self.hfu = USUAL_HFU if mfu is None else self._hfu_at(mfu)

    def candidates(self, world_size: int) -> list[Candidate]:
        """Return the best candidate of each strategy, including those that do not fit.

        Raises:
            ValueError: If the devices do not fill their machines.
        """
        per_node = self.hardware.devices_per_node
        if world_size < 1 or (world_size > per_node and world_size % per_node):
            raise ValueError(
                f"world_size: expected up to {per_node} devices, or a multiple of {per_node} (one "
                f"{self.hardware.name} machine), got {world_size}: change it"
            )
        found = (
            self._best(strategy, world_size, tensor)
            for strategy, tensor in self._strategies(world_size)
        )
        return [candidate for candidate in found if candidate is not None]

    def _strategies(self, world_size: int) -> Iterator[tuple[str, int]]:
        """Yield possible strategies, each with the number of devices that share a block."""
        for strategy in STRATEGIES:
            single = strategy in ("ddp", OFFLOAD)
            # DeepSpeed and tensor parallelism do not support fp16.
            scaled = self.workload.precision == "16-mixed" and strategy not in ("ddp", "fsdp2")
            # DeepSpeed's optimizers keep the weights in a form that cannot be averaged.
            unaveraged = self.workload.averaged and strategy not in ("ddp", "fsdp2", "fsdp2_tp")
            # Other strategies cannot shard 4-bit weights.
            quantized = self.workload.lm.quantize is not None and strategy != "ddp"
            refused = scaled or unaveraged or quantized or strategy in self.workload.refused
            if (world_size == 1 and not single) or refused:
                continue
            if strategy != "fsdp2_tp":
                yield strategy, 1
                continue
            shared = (size for size in (2, 4, 8) if world_size % size == 0)
            yield from ((strategy, size) for size in shared if self._divides(size))

    def _divides(self, tensor: int) -> bool:
        """Return whether tensor parallelism can divide the model among that many devices."""
        if tensor > self.hardware.devices_per_node:
            return False
        try:
            check_plan(self.causal_lm.unwrapped, tensor)
        except ValueError:
            return False
        return True

    def _best(self, strategy: str, world_size: int, tensor: int) -> Candidate | None:
        """Return the fastest that fits, else the smallest; None if batches cannot be divided."""
        rows, rest = divmod(self.workload.global_batch_size * tensor, world_size)
        if rest or not rows:
            return None
        sizes = [n for n in range(min(rows, self.workload.batch_size), 0, -1) if rows % n == 0]
        smallest = TrainingSetup(
            strategy,
            world_size,
            tensor,
            sizes[-1],
            rows // sizes[-1],
            activation_checkpointing=True,
        )
        if self._model_memory(smallest).device > (1 - MARGIN) * self.hardware.memory_gb * GB:
            # It cannot fit; the smallest setup shows how much is missing.
            return self._estimate(smallest)
        fitting = []
        for recompute in (False, True):
            for size in sizes:
                candidate = self._estimate(
                    replace(
                        smallest,
                        batch_size=size,
                        accumulate=rows // size,
                        activation_checkpointing=recompute,
                    )
                )
                if candidate.fits:
                    fitting.append(candidate)
                    break
            if fitting and strategy == "ddp" and world_size == 1:
                break  # without communication, recomputation only adds operations
        return min(fitting, key=lambda each: each.device_seconds) if fitting else candidate

    def _estimate(self, setup: TrainingSetup) -> Candidate:
        workload, hardware = self.workload, self.hardware
        run = self._dry_run(setup)
        tokens = setup.batch_size * setup.accumulate * workload.block_size
        flops = run.flops_per_token / setup.tensor_parallel_size
        compute = compute_seconds(flops, tokens, self.hfu, hardware)
        seconds = compute + exposed_seconds(
            self._traffic(setup), self._blocking_traffic(setup), compute, hardware
        )
        if setup.strategy == OFFLOAD:
            seconds += offload_seconds(
                self.sizes, setup.world_size, setup.accumulate, workload.optimizer, hardware
            )
        return Candidate(
            **vars(setup),
            memory=self._model_memory(setup),
            activations=run.activation_bytes,
            head=run.head_bytes,
            step_seconds=seconds,
            tokens_per_step=workload.global_batch_size * workload.block_size,
            model_flops_per_token=self.model_flops_per_token,
            hardware=hardware,
        )

    def _model_memory(self, setup: TrainingSetup) -> ModelMemory:
        return model_memory(
            setup.strategy,
            self.sizes,
            setup.world_size,
            self.workload.number_bytes,
            setup.tensor_parallel_size,
            self.workload.reference_sizes,
        )

    def _traffic(self, setup: TrainingSetup) -> Traffic:
        """Return the traffic of a device in a step."""
        sizes, number_bytes = self.sizes, self.workload.number_bytes

        def sent(gradient_bytes: int) -> Traffic:
            return step_bytes(
                setup.strategy,
                sizes,
                setup.world_size,
                self.hardware.devices_per_node,
                setup.batch_size * self.workload.block_size,
                tensor_parallel_size=setup.tensor_parallel_size,
                accumulate=setup.accumulate,
                parameter_bytes=number_bytes.computed,
                gradient_bytes=gradient_bytes,
                recomputed=setup.activation_checkpointing,
            )

        # Only trainable parameters, such as adapters, have gradients.
        share = sizes.trainable / sizes.parameters
        weights = sent(0)
        gradients = sent(number_bytes.trained if setup.strategy == "ddp" else 4)
        once = weights * (1 - share) + gradients * share
        return once + weights * (self.workload.extra_passes.passes - 1)

    def _blocking_traffic(self, setup: TrainingSetup) -> Traffic:
        """Return the part of the traffic that the next layer waits for."""
        per_pass = group_sums(
            setup.batch_size * self.workload.block_size,
            self.sizes,
            Ring(setup.tensor_parallel_size, 1, self.hardware.devices_per_node),
            self.workload.number_bytes.computed,
            setup.activation_checkpointing,
        )
        return per_pass * setup.accumulate * self.workload.extra_passes.passes

    def _hfu_at(self, mfu: float) -> float:
        """Return the HFU of the configured run on one device at an MFU."""
        recompute = self.workload.lm.activation_checkpointing
        executed = self._dry_run(TrainingSetup("ddp", 1, 1, 1, 1, recompute)).flops_per_token
        highest = self.model_flops_per_token / executed
        if mfu > highest:
            raise ValueError(
                f"mfu: expected at most {highest:.2f}, where the configured run with its "
                f"recomputation reaches the peak, got {mfu}: read it from throughput.csv"
            )
        return mfu / highest

    def _dry_run(self, setup: TrainingSetup) -> DryRun:
        # Sharding strategies gather weights in the dtype of the arithmetic.
        dtype = self.workload.lm.dtype
        if setup.strategy != "ddp" and dtype == "float32":
            dtype = "float16" if self.workload.precision == "16-mixed" else "bfloat16"
        recompute = setup.activation_checkpointing
        key = dtype, setup.batch_size, recompute
        if key not in self._dry_runs:
            self._dry_runs[key] = dry_run(
                replace(self.workload.lm, dtype=dtype, activation_checkpointing=recompute),
                setup.batch_size,
                self.workload.block_size,
                self.workload.precision,
                extra_passes=self.workload.extra_passes,
                rules=self.workload.rules,
            )
        return self._dry_runs[key]
