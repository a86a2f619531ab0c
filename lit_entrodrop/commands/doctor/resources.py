"""Checks of memory, disk and device; none loads weights or runs the model."""

import shutil
from pathlib import Path
from typing import Any

import psutil
import torch

from lit_entrodrop.commands.doctor.check import Check, Theme, failed, passed, warned
from lit_entrodrop.commands.doctor.subject import Subject
from lit_entrodrop.commands.plan.activations import dry_run
from lit_entrodrop.commands.plan.options import MARGIN
from lit_entrodrop.commands.plan.settings import data_parallel_size
from lit_entrodrop.commands.plan.states import Held, States, states
from lit_entrodrop.data.packed_splits import EVALUATED
from lit_entrodrop.entropy.scoring import entropy_folder
from lit_entrodrop.entropy.store import EntropyStore
from lit_entrodrop.model.config import AUTOCAST_DTYPES
from lit_entrodrop.model.hardware import GB
from lit_entrodrop.runs.layout import refuse_used_folder
from lit_entrodrop.training.checks import check_strategy
from lit_entrodrop.training.strategies.names import STRATEGIES

HALF_BYTES = 2
CLASSES = {"FSDPStrategy": "fsdp", "FSDP2Strategy": "fsdp2", "DeepSpeedStrategy": "deepspeed_zero3"}


def run_folder(subject: Subject) -> Check:
    """Look whether `fit` would refuse the folder."""
    folder = Path(subject.config["trainer"]["default_root_dir"])
    refuse_used_folder(folder, subject.config.get("ckpt_path"))
    return passed(f"{folder} holds no other run")


def device_memory(subject: Subject) -> Check:
    """Compare what a step takes under the configured strategy with the memory of the device."""
    trainer, job = subject.config["trainer"], subject.job
    setting = trainer["strategy"]
    check_strategy(setting["class_path"] if isinstance(setting, dict) else setting)
    on_gpu = uses_gpu(trainer["accelerator"])
    strategy, tensor = strategy_of(setting)
    world = data_parallel_size(trainer) * tensor
    precision = str(trainer["precision"])
    computed = 2 if precision in AUTOCAST_DTYPES or job.lm.dtype != "float32" else 4
    held = Held(4 if job.lm.dtype == "float32" else 2, computed, job.optimizer)
    taken = states(strategy, subject.sizes, world, held, tensor, job.frozen)
    step = dry_run(job.lm, job.batch_size, job.block_size, precision, on_gpu, job.demands)
    needed = taken.device + step.activation_bytes
    found = f"{_gb(needed)} GB on each of {world} devices under {strategy} (estimated), "
    if on_gpu and not torch.cuda.is_available():
        return warned(
            f"{found}but there is no GPU here to compare with",
            "`lit-entrodrop plan --hardware ...` with the same arguments tells where that fits",
        )
    return _compared(found, needed, taken, int(trainer["num_nodes"]), world, on_gpu)


def entropy_cache(subject: Subject) -> Check:
    """Look whether the entropies of all splits find room on the disk, and can be mapped."""
    folder = entropy_folder(subject.data.hparams["cache_dir"])
    reference = subject.config["model"]["reference"]
    if reference is not None and Path(reference).suffix == ".safetensors":
        EntropyStore.load(Path(reference), subject.data.fingerprint("train"))
    # A file of a real store, which ends with it, as some file systems map none.
    EntropyStore.temporary(1, 2, "doctor", folder)
    losses = loss_bytes(subject)
    needed, free = entropy_bytes(subject) + losses, free_bytes(folder)
    what = "entropies and losses" if losses else "entropies"
    found = f"{_gb(needed)} GB for {what}, {_gb(free)} GB free in {folder}"
    if needed > (1 - MARGIN) * free:
        return failed(found, "free some room, or set data.cache_dir to a larger disk")
    return passed(f"{found}; files can be memory-mapped there")


def checkpoint_room(subject: Subject) -> Check:
    """Look whether the checkpoints that are kept, and one being written, find room."""
    sizes, job = subject.sizes, subject.job
    stored = 4 if job.lm.dtype == "float32" else 2
    # Adapters are saved with the model around them.
    each = sizes.parameters * stored + sizes.trainable * job.optimizer + entropy_bytes(subject)
    kept = int(subject.config["checkpoints"]["keep_last"]) + 2
    folder = Path(subject.config["trainer"]["default_root_dir"])
    free = free_bytes(folder)
    found = (
        f"{kept} checkpoints of {_gb(each)} GB (the best, the last {kept - 2}, one being written), "
        f"{_gb(free)} GB free in {folder}"
    )
    if kept * each > (1 - MARGIN) * free:
        return failed(
            found,
            "free some room, set trainer.default_root_dir to a larger disk, or lower "
            "checkpoints.keep_last",
        )
    return passed(found)


def room_to_load(subject: Subject) -> Check:
    """Look whether weights, their gradients and some activations fit on this machine."""
    stored = 4 if subject.job.lm.dtype == "float32" else 2
    needed = stored * (subject.sizes.parameters + subject.sizes.trainable)
    here = torch.cuda.is_available() and uses_gpu(subject.config["trainer"]["accelerator"])
    free = torch.cuda.mem_get_info()[0] if here else psutil.virtual_memory().available
    found = f"weights and gradients take {_gb(needed)} GB of {_gb(free)} that are free here"
    if needed <= (1 - 2 * MARGIN) * free:
        return passed(found)
    return warned(f"{found}: the model is not examined", "run doctor where the training will run")


def uses_gpu(accelerator: str) -> bool:
    """Tell whether a run would use a GPU: whether it asks for one, or takes what is there.

    >>> uses_gpu("cuda"), uses_gpu("cpu")
    (True, False)
    """
    return accelerator in ("gpu", "cuda") or (accelerator == "auto" and torch.cuda.is_available())


def strategy_of(setting: str | dict[str, Any]) -> tuple[str, int]:
    """Return the name of a strategy, as `plan` calls it, and how many devices share a block.

    >>> strategy_of("auto")
    ('ddp', 1)
    >>> strategy_of({"class_path": "lit_entrodrop.training.strategies.FSDPStrategy"})
    ('fsdp', 1)
    """
    if isinstance(setting, str):
        return (setting if setting in STRATEGIES else "ddp"), 1
    tensor = int((setting.get("init_args") or {}).get("tensor_parallel_size", 1))
    name = CLASSES.get(setting["class_path"].rpartition(".")[2], "ddp")
    return ("fsdp2_tp" if name == "fsdp2" and tensor > 1 else name), tensor


def entropy_bytes(subject: Subject) -> int:
    """Return the bytes of the entropies of all tokens."""
    places = (
        sum(subject.data.num_blocks(split) for split in ("train", *EVALUATED))
        * subject.data.block_size
    )
    return HALF_BYTES * places


def loss_bytes(subject: Subject) -> int:
    """Return about how many bytes the losses take of which holdout gains are made."""
    neighbours = subject.module.regularizers.requirements.holdout_neighbours
    train, holdout = subject.blocks("train"), subject.blocks("holdout")
    if neighbours is None or train is None or holdout is None:
        return 0
    # Each training chunk alone, and behind its neighbours.
    before = train.num_chunks * neighbours * len(holdout.tokens) / holdout.num_chunks
    return HALF_BYTES * round(2 * len(train.tokens) + before)


def free_bytes(folder: Path) -> int:
    """Return the free bytes of the disk on which a folder is, or will be."""
    there = next(each for each in (folder.resolve(), *folder.resolve().parents) if each.exists())
    return shutil.disk_usage(there).free


def _compared(
    found: str, needed: int, taken: States, num_nodes: int, world: int, on_gpu: bool
) -> Check:
    here = max(1, world // num_nodes)
    host = psutil.virtual_memory().available
    if on_gpu:
        free, total = torch.cuda.mem_get_info()
        found += f"{_gb(free)} of {_gb(total)} GB free on this GPU"
        fits = needed <= free - MARGIN * total and taken.host * here <= (1 - MARGIN) * host
    else:
        found += f"no GPU is used: {_gb(host)} GB of host memory free"
        fits = (needed + taken.host) * here <= (1 - MARGIN) * host
    if taken.host:
        found += f"; {_gb(taken.host * here)} GB of states in host memory ({_gb(host)} free)"
    if fits:
        return passed(found)
    return failed(
        found,
        "lower data.batch_size and raise trainer.accumulate_grad_batches, set "
        "model.lm.activation_checkpointing, take a strategy that shards or model.lm.lora; "
        "`lit-entrodrop plan` compares them",
    )


def _gb(number: float) -> str:
    return f"{number / GB:,.2f}" if number < 10 * GB else f"{number / GB:,.0f}"


DEVICE = Theme("device", (run_folder, device_memory))
DISK = Theme("disk", (entropy_cache, checkpoint_room))
