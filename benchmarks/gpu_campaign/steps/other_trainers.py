"""Our ``fit`` against other trainers on the same model and blocks, by turns, in bf16."""

import sys
from collections.abc import Iterator, Sequence
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory

import torch

from benchmarks.gpu_campaign.cases import Row, Skipped
from benchmarks.gpu_campaign.sizes import ARCHITECTURES
from benchmarks.peers.process import compare
from benchmarks.peers.report import table
from benchmarks.peers.training import prepare_model

# Packages without which a trainer is left out.
NEEDS = {"hf_trainer": "accelerate", "hf_liger": "liger_kernel", "trl_sft": "trl"}


def obstacle(arm: str, device: str) -> str | None:
    """Return why a trainer cannot run here, None if it can."""
    package = NEEDS.get(arm)
    if package is not None and find_spec(package) is None:
        return f"{package} is not installed"
    return "Liger's kernels need a GPU" if arm == "hf_liger" and device == "cpu" else None


def measure_peers(
    arms: Sequence[str],
    model: str,
    length: int,
    batch_size: int,
    turn: int,
    turns: int,
    device: str,
) -> Iterator[Row]:
    """Train with ours and with each other trainer that is installed.

    Args:
        arms: Names of the other trainers, as in ``benchmarks.peers``.
        model: Name of the architecture.
        length: Tokens in a block.
        batch_size: Blocks in a step.
        turn: Steps in a turn.
        turns: Number of timed turns, after an untimed one.
        device: Device, ``cuda`` or ``cpu``.
    """
    missing = {arm: reason for arm in arms if (reason := obstacle(arm, device))}
    for arm, reason in missing.items():
        yield {"arm": arm, "status": "skipped", "reason": reason}
    present = [arm for arm in arms if arm not in missing]
    if not present:
        raise Skipped("none of the other trainers can run here")
    architecture = ARCHITECTURES[model]
    with TemporaryDirectory(prefix="peers-") as folder:
        work, steps = Path(folder), (turns + 1) * turn + 1
        prepare_model(work, architecture, length, batch_size, turn, steps, device)
        results = compare(
            work, ["ours", *present], turns, torch.get_num_threads(), Path(sys.executable), device
        )
    for row in table(architecture["vocab_size"], turn * batch_size * length, results):
        peak = row.pop("peak_mib") / 1024
        versions = results[row["arm"]].versions
        yield {
            "model": model,
            "length": length,
            "batch_size": batch_size,
            **row,
            # On a CPU, the peak is of the resident set, which is another quantity.
            "peak_gib": None if device == "cpu" else peak,
            "versions_of_arm": versions,
        }
