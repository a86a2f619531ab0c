"""Ways to fine-tune a model; `plan --for` recommends the first that fits the GPUs."""

import re
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import yaml
from jsonargparse import ArgumentError

from lit_entrodrop.cli.config_files import config_path
from lit_entrodrop.cli.fit_config import resolved_config
from lit_entrodrop.commands.plan.candidates import Candidate, best_of
from lit_entrodrop.commands.plan.config_conversion import workload_of
from lit_entrodrop.commands.plan.planner import OFFLOAD, Planner
from lit_entrodrop.commands.plan.workload import Workload
from lit_entrodrop.model.hardware import HARDWARE, Hardware, find_hardware
from lit_entrodrop.runtime.nested import merged

STEPS_PER_EPOCH = 15  # with fewer, a run on scarce text has too few steps
DEVICES = re.compile(
    r"(?:(?P<count>\d{1,6})x)?(?:(?P<memory>\d{1,6}(?:\.\d+)?)gb|(?P<name>[\w-]+))"
)


@dataclass(frozen=True)
class Way:
    """A way to fine-tune a model.

    Args:
        name: Name in tables.
        config: Name of a bundled config; None for the recipe of the model as it is.
        settings: Further settings, as in a config.
        extra: Extra of the package that it needs.
    """

    name: str
    config: str | None = None
    settings: dict[str, Any] = field(default_factory=dict)
    extra: str | None = None

    @property
    def content(self) -> dict[str, Any]:
        """Settings of the way, as the content of one config."""
        if self.config is None:
            return self.settings
        return merged(yaml.safe_load(config_path(self.config).read_text()), self.settings)


# All weights come before adapters, which learned a new domain worse (docs/baselines.md).
WAYS = (
    Way("full"),
    Way("full, 8-bit AdamW", "optimizer/adamw8bit.yaml", extra="optimizers"),
    # The dtype in which the models of the recipes are published.
    Way("LoRA", "model/lora.yaml", {"model": {"lm": {"dtype": "bfloat16"}}}, "peft"),
    Way("QLoRA", "model/qlora.yaml", extra="qlora"),
)


@dataclass(frozen=True)
class PlannedWay:
    """A way with its workload and its best setup on some devices."""

    way: Way
    workload: Workload
    setup: Candidate


def requested_devices(text: str) -> tuple[int, Hardware]:
    """Return the number and the kind of devices that a text such as ``2x24GB`` names.

    A memory stands for the slowest known GPU of the closest memory.

    Raises:
        ValueError: If the text names no devices.

    >>> count, hardware = requested_devices("2x24GB")
    >>> count, hardware.memory_gb, requested_devices("RTX4090")[1].memory_gb
    (2, 24.0, 24)
    """
    match = DEVICES.fullmatch(text.strip().lower().replace(" ", ""))
    found = match.groupdict() if match else {}
    count, memory = int(found.get("count") or 1), float(found.get("memory") or 0)
    if not count or not (memory or found.get("name") in HARDWARE):
        raise ValueError(
            "for: expected a memory or a GPU, and how many of them, such as 24GB, 2x80GB or "
            f"rtx4090, got {text!r}: write a memory in GB, or one of {', '.join(HARDWARE)}"
        )
    if not memory:
        return count, find_hardware(found["name"])
    known = sorted(HARDWARE.values(), key=lambda each: each.peak_flops)
    closest = min(known, key=lambda each: abs(each.memory_gb - memory))
    return count, replace(closest, name=f"{memory:g}GB", memory_gb=memory)


def rows_per_step(workload: Workload, devices: int, corpus_tokens: float | None = None) -> int:
    """Return the rows of a step: those of the config, or fewer for a small corpus.

    Raises:
        ValueError: If the devices cannot divide them.
    """
    rows = workload.global_batch_size
    if corpus_tokens is not None:
        most = int(corpus_tokens / STEPS_PER_EPOCH / workload.block_size)
        rows = min(rows, max(1, most // devices) * devices)
    if rows % devices:
        raise ValueError(
            f"for: expected a number of GPUs that divides the {rows} rows of a step, got "
            f"{devices}: change it, data.batch_size or trainer.accumulate_grad_batches"
        )
    return rows


def planned_ways(
    arguments: Sequence[str], devices: int, hardware: Hardware, corpus_tokens: float | None = None
) -> tuple[list[PlannedWay], list[str]]:
    """Return the ways that this config supports, and why it does not support the others.

    Args:
        arguments: Arguments of ``fit``, for full fine-tuning.
        devices: Number of devices.
        hardware: Kind of the devices.
        corpus_tokens: Number of tokens in the training split; None if it is unknown.

    Raises:
        ValueError: If the config is invalid, or selects a way itself.
    """
    given = resolved_config(arguments)["model"]["lm"]
    if given["lora"] is not None or given["quantize"] is not None:
        raise ValueError(
            "for: expected the config of full fine-tuning, as `plan --for` compares it with LoRA "
            "and QLoRA itself, got model.lm.lora or model.lm.quantize: leave it out, or name your "
            "GPU by --hardware instead"
        )
    found = {way.name: _planned(way, arguments, devices, hardware, corpus_tokens) for way in WAYS}
    ways = [each for each in found.values() if isinstance(each, PlannedWay)]
    return ways, [f"{name}: {each}" for name, each in found.items() if isinstance(each, str)]


def _planned(
    way: Way,
    arguments: Sequence[str],
    devices: int,
    hardware: Hardware,
    corpus_tokens: float | None,
) -> PlannedWay | str:
    """Return a way with its best setup, or why the config does not support it."""
    try:
        workload = way_workload(way, arguments, devices, corpus_tokens)
        found = Planner(workload, hardware).candidates(devices)
    except (ValueError, ArgumentError) as error:
        if way.config is None:
            raise
        return str(error)
    return PlannedWay(way, workload, best_of(found))


def way_workload(
    way: Way, arguments: Sequence[str], devices: int, corpus_tokens: float | None = None
) -> Workload:
    """Return the workload of a way, with the rows of a step for a corpus of this size."""
    workload = workload_of(resolved_config([*arguments, way.content]))
    rows = rows_per_step(workload, devices, corpus_tokens)
    return replace(
        workload,
        global_batch_size=rows,
        batch_size=min(workload.batch_size, rows),
        # The host memory is unknown, and tensor parallelism is for many fast devices.
        refused=workload.refused | {OFFLOAD, "fsdp2_tp"},
    )
