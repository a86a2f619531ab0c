"""`lit-entrodrop plan`: estimate which strategy fits a config on given hardware."""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lit_entrodrop.cli.fit_config import resolved_config
from lit_entrodrop.cli.terminal import command_parser, console_of
from lit_entrodrop.commands.plan.candidates import cheapest
from lit_entrodrop.commands.plan.config_conversion import (
    config_text,
    epoch_tokens,
    optimization_of,
    training_tokens,
    workload_of,
)
from lit_entrodrop.commands.plan.estimates.speed import OVERLAP
from lit_entrodrop.commands.plan.planner import USUAL_HFU, Planner
from lit_entrodrop.commands.plan.recommendation import nothing_fits, recommendation, shown, table
from lit_entrodrop.commands.plan.way_advice import advice, fit_command, recommended, ways_table
from lit_entrodrop.commands.plan.ways import STEPS_PER_EPOCH, planned_ways, requested_devices
from lit_entrodrop.model.hardware import HARDWARE, find_hardware
from lit_entrodrop.runs.writing import write_whole
from lit_entrodrop.training.optim import group_table

WORLD_SIZES = (1, 2, 4, 8, 16, 32, 64)
WIDTH = 160  # characters, if the output is not a terminal
DESCRIPTION = """Estimate memory, speed and cost of a run, and recommend a strategy.

Takes all arguments of `fit`, and keeps the global batch: data.batch_size x
trainer.accumulate_grad_batches x devices (`auto` counts as one). data.batch_size is the largest
micro-batch considered. Needs no GPU and loads no weights: a training step runs on tensors without
values. All numbers are estimates; 10 % of each memory stays free. Where trainer.precision and
model.lm.dtype are fp32, it assumes bf16-mixed. With --for, it compares full
fine-tuning, LoRA and QLoRA instead of strategies."""
EPILOG = """examples:
  lit-entrodrop plan --config configs/base.yaml --config configs/model/qwen3_1.7b.yaml \\
      --for 24GB --corpus_tokens 250e3 --output plan.yaml
  lit-entrodrop plan --config configs/base.yaml --config configs/model/llama3.1_8b.yaml \\
      --hardware h100 --output plan.yaml"""


def main(args: Sequence[str]) -> None:
    """Run the command.

    Raises:
        ValueError: If an option is invalid, or nothing fits.
    """
    own, arguments = _parser().parse_known_args(args)
    _check(own)
    if own.recommend_for is not None:
        recommend(own, arguments)
        return
    hardware = find_hardware(own.hardware or "h100")
    config = resolved_config(arguments)
    workload = workload_of(config)
    planner = Planner(workload, hardware, own.mfu)
    found = [each for size in own.world_size or WORLD_SIZES for each in planner.candidates(size)]
    if not found:
        raise ValueError(
            f"world_size: expected a number that divides the global batch of "
            f"{workload.global_batch_size} rows, got {own.world_size}: change it, data.batch_size "
            "or trainer.accumulate_grad_batches"
        )
    tokens = training_tokens(config, workload, own.corpus_tokens)
    console = console_of(WIDTH)
    console.print(table(shown(found), tokens, own.price_per_hour))
    all_epochs = "" if tokens is None else f"{tokens:,.0f} tokens over all epochs; "
    console.print(
        f"{planner.sizes.parameters / 1e9:.2f} B parameters, {planner.sizes.trainable / 1e9:.2f} B "
        f"trainable; {workload.global_batch_size} rows of {workload.block_size} tokens per step; "
        f"{all_epochs}assumes that devices compute at {planner.hfu:.0%} of their peak FLOPS, "
        f"recomputation included (HFU), and that communication overlaps with {OVERLAP:.0%} of "
        "computing. Estimates, not measurements."
    )
    if groups := groups_text(config, planner):
        console.print(groups)
    best = cheapest(found)
    if best is None:
        raise ValueError(nothing_fits(found))
    console.print(recommendation(found))
    if own.output is not None:
        write_whole(own.output, config_text(best, workload))
        console.print(f"config: {own.output}")


def recommend(own: argparse.Namespace, arguments: Sequence[str]) -> None:
    """Plan full fine-tuning, LoRA and QLoRA on the GPUs of the user, and recommend one.

    Raises:
        ValueError: If the GPUs or the config are invalid, or nothing fits.
    """
    devices, hardware = requested_devices(own.recommend_for)
    tokens = epoch_tokens(resolved_config(arguments), own.corpus_tokens)
    ways, refusals = planned_ways(arguments, devices, hardware, tokens)
    console = console_of(WIDTH)
    console.print(ways_table(ways, hardware))
    for each in refusals:
        console.print(each, markup=False)
    best = recommended(ways)
    console.print(advice(best, tokens))
    if own.output is not None:
        write_whole(own.output, config_text(best.setup, best.workload, best.way.content))
        console.print(f"config: {own.output}")
    # A command has no line breaks when it is copied.
    print(fit_command(best, arguments, own.output and str(own.output)))


def groups_text(config: dict[str, Any], planner: Planner) -> str:
    """Return a table of the parameter groups, if settings of the config form them; else nothing."""
    optimization, causal_lm = optimization_of(config), planner.causal_lm
    groups = optimization.planned_groups(causal_lm, planner.workload.lm.lora)
    formed = len(groups) > 2 or optimization.rules
    return group_table(groups, causal_lm) if formed else ""


def _parser() -> argparse.ArgumentParser:
    parser = command_parser(
        "plan", DESCRIPTION, EPILOG, usage="%(prog)s [options below] [any argument of fit ...]"
    )
    add = parser.add_argument
    add(
        "--hardware",
        metavar="NAME",
        help=f"Name of the accelerator: {', '.join(HARDWARE)} (default: h100).",
    )
    add(
        "--for",
        dest="recommend_for",
        metavar="GPUS",
        help="Memory or name of your GPUs, such as 24GB, 2x80GB or rtx4090: compares full "
        "fine-tuning, LoRA and QLoRA, and recommends the first that fits.",
    )
    add(
        "--world_size",
        type=int,
        nargs="+",
        metavar="N",
        help="One or several total numbers of devices "
        f"(default: {' '.join(map(str, WORLD_SIZES))}).",
    )
    add(
        "--mfu",
        type=float,
        metavar="SHARE",
        help="MFU of the configured run on one device, from its throughput.csv "
        f"(default: that at an HFU of {USUAL_HFU}, the share of the peak with recomputation).",
    )
    add(
        "--corpus_tokens",
        type=float,
        metavar="N",
        help="Number of tokens in the training split; data.max_train_tokens bounds it. "
        "Shows the days of the run. With --for, steps have fewer tokens if an epoch would have "
        f"fewer than {STEPS_PER_EPOCH} steps.",
    )
    add(
        "--price_per_hour",
        type=float,
        metavar="PRICE",
        help="Price of a device-hour; shows the cost of the run.",
    )
    add(
        "--output",
        type=Path,
        metavar="FILE",
        help="Path to a new YAML file for the recommended setup, to pass as the last --config.",
    )
    return parser


def _check(own: argparse.Namespace) -> None:
    if own.mfu is not None and not 0 < own.mfu <= 1:
        raise ValueError(f"mfu: expected a share above 0 and up to 1, got {own.mfu}: 0.4 is usual")
    for name in ("corpus_tokens", "price_per_hour"):
        value = getattr(own, name)
        if value is not None and not 0 < value < float("inf"):
            raise ValueError(f"{name}: expected a finite number above 0, got {value}: correct it")
    others = ("hardware", "world_size", "mfu", "price_per_hour")
    given = [name for name in others if getattr(own, name) is not None]
    if own.recommend_for is not None and given:
        raise ValueError(
            f"for: expected no other option for speed and devices, got --{given[0]}: leave one out"
        )
    if own.output is not None and own.output.exists():
        raise ValueError(
            f"output: expected a new file, but {own.output} exists: choose another name"
        )
