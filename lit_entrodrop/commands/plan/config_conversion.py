"""Conversion of a run's config into a workload, and of a candidate into a config."""

from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from pkgutil import resolve_name
from typing import Any

import torch
import yaml
from lightning.pytorch.strategies import StrategyRegistry

from lit_entrodrop.commands.plan.candidates import MARGIN, Candidate
from lit_entrodrop.commands.plan.estimates.extra_passes import extra_passes_of
from lit_entrodrop.commands.plan.estimates.model_memory import FP32, STRATEGIES, optimizer_bytes
from lit_entrodrop.commands.plan.workload import Workload
from lit_entrodrop.model.building import build_on_meta
from lit_entrodrop.model.config import AUTOCAST_DTYPES, LMConfig, frozen_config, is_within
from lit_entrodrop.model.sizes import sizes_of
from lit_entrodrop.runtime.nested import merged
from lit_entrodrop.runtime.setting_checks import check_at_least
from lit_entrodrop.training.averaging import Average
from lit_entrodrop.training.optim import (
    LRSchedule,
    Optimization,
    ParameterRule,
    check_can_step,
)
from lit_entrodrop.training.preflight.optimizer import check_strategy_of


def workload_of(config: dict[str, Any]) -> Workload:
    """Return the workload that a config of `fit` with all defaults describes."""
    data, trainer = config["data"], config["trainer"]
    lm = LMConfig.from_dict(config["model"]["lm"])
    check_at_least(1, batch_size=data["batch_size"], block_size=data["block_size"])
    check_at_least(1, accumulate_grad_batches=trainer["accumulate_grad_batches"])
    extra = extra_passes_of(config["model"]["regularizers"])
    per_step = data["batch_size"] * trainer["accumulate_grad_batches"]
    average = config["model"].get("average") and Average(**config["model"]["average"])
    stored = getattr(torch, lm.dtype).itemsize
    of_teacher = FP32 if extra.required.teacher is not None else 0
    in_files = lm.pretrained is not None and not lm.pretrained.endswith(".gguf")
    copied = extra.required.initial_copy or not in_files
    initial = stored if extra.required.initial_weights and copied else 0
    reference = config["model"]["reference"]
    has_copy = extra.required.reference and not is_within(lm, reference)
    optimization = optimization_of(config)
    trained = getattr(torch, lm.dtype) if lm.lora is None else torch.float32
    made, hidden = check_can_step(optimization.make), 1.0
    if getattr(made, "separates_hidden", False):
        sizes = sizes_of(build_on_meta(replace(lm, compile=False)))
        hidden -= sizes.around_trainable / sizes.trainable
    return Workload(
        lm=lm,
        batch_size=data["batch_size"],
        global_batch_size=per_step * data_parallel_size(trainer),
        block_size=data["block_size"],
        precision=planned_precision(str(trainer["precision"]), lm.dtype),
        optimizer=optimizer_bytes(optimization.make, trained, hidden)
        + (average.bytes_per_weight(stored) if average else of_teacher)
        + initial,
        averaged=average is not None or extra.required.teacher is not None,
        refused=frozenset(name for name in STRATEGIES if not _steps_under(made, name)),
        extra_passes=extra,
        rules=tuple(optimization.rules),
        reference=frozen_config(lm, reference) if has_copy else None,
    )


def optimization_of(config: dict[str, Any]) -> Optimization:
    """Return the optimizer and the parameter groups that a config describes, without schedules."""
    model = config["model"]
    settings = model["optimizer"].get("init_args") or {}
    make = partial(resolve_name(model["optimizer"]["class_path"]), **settings)
    rules = [ParameterRule(**each) for each in model["groups"]]
    return Optimization(make, LRSchedule(), rules, model["layer_lr_decay"])


def _steps_under(optimizer: torch.optim.Optimizer, strategy: str) -> bool:
    try:
        check_strategy_of(optimizer, StrategyRegistry[strategy]["strategy"])
    except ValueError:
        return False
    return True


def planned_precision(precision: str, dtype: str) -> str:
    """Return the precision of a config, or bf16-mixed if it computes in fp32.

    >>> planned_precision("32-true", "float32"), planned_precision("32-true", "bfloat16")
    ('bf16-mixed', '32-true')
    """
    return precision if precision in AUTOCAST_DTYPES or dtype != "float32" else "bf16-mixed"


def data_parallel_size(trainer: dict[str, Any]) -> int:
    """Return the number of micro-batches that devices compute at once; ``auto`` is one device.

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


def epoch_tokens(config: dict[str, Any], corpus_tokens: float | None) -> float | None:
    """Return the number of training tokens of an epoch, or None if the corpus is unknown.

    >>> epoch_tokens({"data": {"max_train_tokens": 30_000}}, 1e6)
    30000
    """
    most = config["data"]["max_train_tokens"]
    return corpus_tokens if corpus_tokens is None or most is None else min(corpus_tokens, most)


def training_tokens(
    config: dict[str, Any], workload: Workload, corpus_tokens: float | None
) -> float | None:
    """Return the number of tokens that the whole run trains on, or None if it is unknown.

    Replay adds its share to the tokens of the corpus.
    """
    epochs, steps = config["trainer"]["max_epochs"], config["trainer"]["max_steps"]
    bounds = []
    tokens = epoch_tokens(config, corpus_tokens)
    if steps and steps > 0:
        bounds.append(float(steps * workload.global_batch_size * workload.block_size))
    if tokens is not None and epochs and epochs > 0:
        replay = (config["data"].get("replay") or {}).get("share", 0.0)
        bounds.append(tokens * epochs / (1 - replay))
    return min(bounds, default=None)


def settings_of(candidate: Candidate, workload: Workload) -> dict[str, Any]:
    """Return the settings with which `fit` trains as a candidate does."""
    strategy: Any = candidate.strategy
    if candidate.strategy == "ddp" and candidate.world_size == 1:
        strategy = "auto"
    if candidate.tensor_parallel_size > 1:
        strategy = {
            "class_path": "lit_entrodrop.training.strategies.FSDP2Strategy",
            "init_args": {"tensor_parallel_size": candidate.tensor_parallel_size},
        }
    return {
        "trainer": {
            "strategy": strategy,
            "devices": candidate.devices,
            "num_nodes": candidate.num_nodes,
            "precision": workload.precision,
            "accumulate_grad_batches": candidate.accumulate,
        },
        "data": {"batch_size": candidate.batch_size},
        "model": {"lm": {"activation_checkpointing": candidate.activation_checkpointing}},
    }


def config_text(
    candidate: Candidate, workload: Workload, others: Mapping[str, Any] | None = None
) -> str:
    """Return the YAML config with which `fit` trains as a candidate does.

    Args:
        candidate: The setup.
        workload: Its workload.
        others: Further settings; those of the candidate override them.
    """
    config = merged(dict(others or {}), settings_of(candidate, workload))
    settings: str = yaml.safe_dump(config, sort_keys=False)
    hardware = candidate.hardware
    return (
        f"# Written by `lit-entrodrop plan` for {candidate.world_size} x {hardware.name}.\n"
        f"# Estimated memory: {candidate.device_gb:.1f} of {hardware.memory_gb:g} GB per device "
        f"({MARGIN:.0%} stay free).\n"
        f"# Pass it as the last --config of `fit`.\n"
        f"{settings}"
    )
