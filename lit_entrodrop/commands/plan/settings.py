"""From the config of a run to what is planned, and back to a config."""

import importlib
from functools import partial
from typing import Any

import torch
import yaml

from lit_entrodrop.commands.plan.demands import demands_of
from lit_entrodrop.commands.plan.job import Job
from lit_entrodrop.commands.plan.options import MARGIN, Option
from lit_entrodrop.commands.plan.states import FP32, optimizer_bytes
from lit_entrodrop.model.config import AUTOCAST_DTYPES, LMConfig, frozen_config
from lit_entrodrop.runtime.setting_checks import check_at_least


def job_of(config: dict[str, Any]) -> Job:
    """Return what a config trains.

    Args:
        config: of `fit`, with all defaults.
    """
    lm, data, trainer = config["model"]["lm"], config["data"], config["trainer"]
    settings = LMConfig.from_dict(lm)
    check_at_least(1, batch_size=data["batch_size"], block_size=data["block_size"])
    check_at_least(1, accumulate_grad_batches=trainer["accumulate_grad_batches"])
    demands = demands_of(config["model"]["regularizers"])
    per_step = data["batch_size"] * trainer["accumulate_grad_batches"]
    return Job(
        lm=settings,
        batch_size=data["batch_size"],
        global_batch_size=per_step * data_parallel_size(trainer),
        block_size=data["block_size"],
        precision=planned_precision(str(trainer["precision"]), settings.dtype),
        optimizer=_optimizer_bytes(config["model"]["optimizer"], settings.dtype)
        + (FP32 if demands.required.teacher is not None else 0),
        demands=demands,
        reference=frozen_config(settings, config["model"]["reference"])
        if demands.required.reference
        else None,
    )


def planned_precision(precision: str, dtype: str) -> str:
    """Return the precision to plan for: that of the config, unless it computes in fp32.

    >>> planned_precision("32-true", "float32"), planned_precision("32-true", "bfloat16")
    ('bf16-mixed', '32-true')
    """
    return precision if precision in AUTOCAST_DTYPES or dtype != "float32" else "bf16-mixed"


def data_parallel_size(trainer: dict[str, Any]) -> int:
    """Return how many micro-batches the devices of a config compute at once.

    Args:
        trainer: its section; as many devices as there are (``auto``) count as one.

    >>> data_parallel_size({"devices": "4", "num_nodes": 2, "strategy": "fsdp2"})
    8
    """
    devices = trainer["devices"]
    if isinstance(devices, str) and "," in devices:
        devices = [each for each in devices.split(",") if each.strip()]
    if isinstance(devices, list):
        count = len(devices)
    else:
        count = 1 if devices == "auto" else max(1, int(devices))
    strategy = trainer["strategy"]
    arguments = strategy.get("init_args") or {} if isinstance(strategy, dict) else {}
    shared: int = arguments.get("tensor_parallel_size", 1)
    return max(1, count * int(trainer["num_nodes"]) // shared)


def training_tokens(config: dict[str, Any], job: Job, corpus_tokens: float | None) -> float | None:
    """Return how many tokens the whole run trains on; None if it is not known.

    Args:
        config: of `fit`, with all defaults.
        job: what it trains.
        corpus_tokens: of the training split.
    """
    epochs, steps = config["trainer"]["max_epochs"], config["trainer"]["max_steps"]
    bounds = []
    if steps and steps > 0:
        bounds.append(float(steps * job.global_batch_size * job.block_size))
    if corpus_tokens is not None and epochs and epochs > 0:
        bounds.append(corpus_tokens * epochs)
    return min(bounds, default=None)


def config_of(option: Option, job: Job) -> dict[str, Any]:
    """Return what `fit` must be told to train in a way.

    Args:
        option: the way.
        job: what is trained.
    """
    strategy: Any = option.strategy
    if option.strategy == "ddp" and option.world_size == 1:
        strategy = "auto"
    if option.tensor_parallel_size > 1:
        strategy = {
            "class_path": "lit_entrodrop.training.strategies.FSDP2Strategy",
            "init_args": {"tensor_parallel_size": option.tensor_parallel_size},
        }
    return {
        "trainer": {
            "strategy": strategy,
            "devices": option.devices,
            "num_nodes": option.num_nodes,
            "precision": job.precision,
            "accumulate_grad_batches": option.accumulate,
        },
        "data": {"batch_size": option.batch_size},
        "model": {"lm": {"activation_checkpointing": option.activation_checkpointing}},
    }


def config_text(option: Option, job: Job) -> str:
    """Return that as YAML, with the reason atop."""
    settings: str = yaml.safe_dump(config_of(option, job), sort_keys=False)
    return (
        f"# By `lit-entrodrop plan` for {option.world_size} x {option.hardware.name}: about "
        f"{option.device_gb:.1f} of {option.hardware.memory_gb:g} GB on each\n"
        f"# ({MARGIN:.0%} are left free). Give it last, after the configs of the run.\n"
        f"{settings}"
    )


def _optimizer_bytes(optimizer: dict[str, Any], dtype: str) -> float:
    module, _, name = optimizer["class_path"].rpartition(".")
    make = getattr(importlib.import_module(module), name)
    settings = optimizer.get("init_args") or {}
    return optimizer_bytes(partial(make, **settings), getattr(torch, dtype))
