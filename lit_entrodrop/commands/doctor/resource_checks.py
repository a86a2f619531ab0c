"""Checks of memory, disk and device; none loads weights or runs the model."""

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil
import torch

from lit_entrodrop.commands.doctor.check import CheckResult, Theme, failed, passed, warned
from lit_entrodrop.commands.doctor.configured_run import ConfiguredRun
from lit_entrodrop.commands.plan.candidates import MARGIN
from lit_entrodrop.commands.plan.config_conversion import data_parallel_size
from lit_entrodrop.commands.plan.estimates.activations import dry_run
from lit_entrodrop.commands.plan.estimates.model_memory import (
    STRATEGIES,
    ModelMemory,
    model_memory,
    weight_bytes,
)
from lit_entrodrop.entropy.score_cache import entropy_folder
from lit_entrodrop.entropy.store import EntropyStore
from lit_entrodrop.model.config import AUTOCAST_DTYPES
from lit_entrodrop.model.hardware import GB
from lit_entrodrop.runs.layout import refuse_used_folder
from lit_entrodrop.training.strategies import check_strategy

HALF_BYTES = 2
CLASSES = {"FSDP2Strategy": "fsdp2", "DeepSpeedStrategy": "deepspeed_zero3"}


def run_folder(run: ConfiguredRun) -> CheckResult:
    """Check that `fit` accepts the run folder."""
    folder = Path(run.config["trainer"]["default_root_dir"])
    refuse_used_folder(folder, run.config.get("ckpt_path"))
    return passed(f"{folder} contains no other run")


def device_memory(run: ConfiguredRun) -> CheckResult:
    """Compare the memory of a step under the configured strategy with that of the device."""
    trainer, workload = run.config["trainer"], run.workload
    setting = trainer["strategy"]
    check_strategy(setting["class_path"] if isinstance(setting, dict) else setting)
    on_gpu = uses_gpu(trainer["accelerator"])
    strategy, tensor = strategy_of(setting)
    world = data_parallel_size(trainer) * tensor
    precision = str(trainer["precision"])
    computed = 2 if precision in AUTOCAST_DTYPES or workload.lm.dtype != "float32" else 4
    number_bytes = replace(workload.number_bytes, computed=computed)
    model = model_memory(strategy, run.sizes, world, number_bytes, tensor, workload.reference_sizes)
    step = dry_run(
        workload.lm,
        workload.batch_size,
        workload.block_size,
        precision,
        on_gpu,
        workload.extra_passes,
        workload.rules,
    )
    needed = model.device + step.activation_bytes
    devices = "1 device" if world == 1 else f"each of {world} devices"
    found = f"{_gb(needed)} GB on {devices} with strategy {strategy} (estimated), "
    if on_gpu and not torch.cuda.is_available():
        return warned(
            f"{found}but this machine has no GPU to compare with",
            "run `lit-entrodrop plan --hardware ...` with the same arguments to see where it fits",
        )
    return _compare(found, needed, model, int(trainer["num_nodes"]), world, on_gpu)


def entropy_cache(run: ConfiguredRun) -> CheckResult:
    """Check that the entropies of all splits fit on the disk, and that it can be memory-mapped."""
    folder = entropy_folder(run.data.hparams["cache_dir"])
    reference = run.config["model"]["reference"]
    if reference is not None and Path(reference).suffix == ".safetensors":
        EntropyStore.load(Path(reference), run.data.fingerprint("train"))
    # Raises on file systems that cannot map files; the file is removed with the store.
    EntropyStore.temporary(1, 2, "doctor", folder)
    losses = loss_bytes(run)
    needed, free = entropy_bytes(run) + losses, free_bytes(folder)
    what = "entropies and losses" if losses else "entropies"
    found = f"{_gb(needed)} GB for {what}, {_gb(free)} GB free in {folder}"
    if needed > (1 - MARGIN) * free:
        return failed(found, "free disk space, or set data.cache_dir to a larger disk")
    return passed(f"{found}; files can be memory-mapped there")


def checkpoint_room(run: ConfiguredRun) -> CheckResult:
    """Check that the kept checkpoints, and one being written, fit on the disk."""
    sizes, number_bytes = run.sizes, run.workload.number_bytes
    # Checkpoints of adapters include the base model, unless it is quantized.
    saved = sizes.parameters if run.workload.lm.quantize is None else sizes.trainable
    model = saved * number_bytes.stored + sizes.trainable * number_bytes.optimizer
    each = model + entropy_bytes(run)
    kept = int(run.config["checkpoints"]["keep_last"]) + 2
    folder = Path(run.config["trainer"]["default_root_dir"])
    free = free_bytes(folder)
    found = (
        f"{kept} checkpoints of {_gb(each)} GB (the best, the last {kept - 2}, one being written), "
        f"{_gb(free)} GB free in {folder}"
    )
    if kept * each > (1 - MARGIN) * free:
        return failed(
            found,
            "free disk space, set trainer.default_root_dir to a larger disk, or lower "
            "checkpoints.keep_last",
        )
    return passed(found)


def room_to_load(run: ConfiguredRun) -> CheckResult:
    """Check that weights, their gradients and some activations fit on this machine."""
    sizes, number_bytes = run.sizes, run.workload.number_bytes
    needed = weight_bytes(sizes, number_bytes) + number_bytes.stored * sizes.trainable
    here = torch.cuda.is_available() and uses_gpu(run.config["trainer"]["accelerator"])
    free = torch.cuda.mem_get_info()[0] if here else psutil.virtual_memory().available
    found = f"weights and gradients need {_gb(needed)} GB, {_gb(free)} GB are free on this machine"
    if needed <= (1 - 2 * MARGIN) * free:
        return passed(found)
    return warned(
        f"{found}: the model is not checked", "run doctor on the machine that will train it"
    )


def uses_gpu(accelerator: str) -> bool:
    """Return whether a run uses a GPU: on request, or if ``auto`` finds one.

    >>> uses_gpu("cuda"), uses_gpu("cpu")
    (True, False)
    """
    return accelerator in ("gpu", "cuda") or (accelerator == "auto" and torch.cuda.is_available())


def strategy_of(setting: str | dict[str, Any]) -> tuple[str, int]:
    """Return the name of a strategy in `plan`, and the number of devices that share a block.

    >>> strategy_of("auto")
    ('ddp', 1)
    >>> strategy_of({"class_path": "lit_entrodrop.training.strategies.FSDP2Strategy"})
    ('fsdp2', 1)
    """
    if isinstance(setting, str):
        return (setting if setting in STRATEGIES else "ddp"), 1
    tensor = int((setting.get("init_args") or {}).get("tensor_parallel_size", 1))
    name = CLASSES.get(setting["class_path"].rpartition(".")[2], "ddp")
    return ("fsdp2_tp" if name == "fsdp2" and tensor > 1 else name), tensor


def entropy_bytes(run: ConfiguredRun) -> int:
    """Return the size of the entropies of all tokens, in bytes."""
    blocks = sum(run.data.num_blocks(split) for split in ("train", *run.data.evaluated))
    return HALF_BYTES * blocks * run.data.block_size


def loss_bytes(run: ConfiguredRun) -> int:
    """Estimate the size of the losses from which holdout gains are computed, in bytes."""
    neighbors = run.module.regularizers.requirements.holdout_neighbors
    train, holdout = run.train_blocks, run.blocks("holdout")
    if neighbors is None or holdout is None:
        return 0
    # Each training chunk is scored alone, and again after its neighbors.
    context = train.num_chunks * neighbors * holdout.num_tokens / holdout.num_chunks
    return HALF_BYTES * round(2 * train.num_tokens + context)


def free_bytes(folder: Path) -> int:
    """Return the free space on the disk of a folder, which need not exist yet, in bytes."""
    there = next(each for each in (folder.resolve(), *folder.resolve().parents) if each.exists())
    return shutil.disk_usage(there).free


def _compare(
    found: str, needed: int, model: ModelMemory, num_nodes: int, world: int, on_gpu: bool
) -> CheckResult:
    per_node = max(1, world // num_nodes)
    host = psutil.virtual_memory().available
    if on_gpu:
        free, total = torch.cuda.mem_get_info()
        found += f"{_gb(free)} of {_gb(total)} GB free on this GPU"
        fits = needed <= free - MARGIN * total and model.host * per_node <= (1 - MARGIN) * host
    else:
        found += f"{_gb(host)} GB of host memory free (no GPU is used)"
        fits = (needed + model.host) * per_node <= (1 - MARGIN) * host
    if model.host:
        found += f"; {_gb(model.host * per_node)} GB offloaded to host memory ({_gb(host)} GB free)"
    if fits:
        return passed(found)
    return failed(
        found,
        "lower data.batch_size and raise trainer.accumulate_grad_batches, set "
        "model.lm.activation_checkpointing, model.lm.lora or model.lm.quantize, or use a strategy "
        "that shards; `lit-entrodrop plan` compares strategies",
    )


def _gb(number: float) -> str:
    return f"{number / GB:,.2f}" if number < 10 * GB else f"{number / GB:,.0f}"


DEVICE = Theme("device", (run_folder, device_memory))
DISK = Theme("disk", (entropy_cache, checkpoint_room))
