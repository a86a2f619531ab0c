"""`lit-entrodrop plan`: which strategy serves a config on given hardware, before any is had."""

import argparse
from collections.abc import Sequence
from pathlib import Path

from lit_entrodrop.cli.lit_cli import resolved_config
from lit_entrodrop.cli.terminal import command_parser, console_of
from lit_entrodrop.commands.plan.options import Options, cheapest
from lit_entrodrop.commands.plan.settings import config_text, job_of, training_tokens
from lit_entrodrop.commands.plan.speed import OVERLAP
from lit_entrodrop.commands.plan.verdict import nothing_fits, shown, table, verdict
from lit_entrodrop.model.hardware import HARDWARE, find_hardware

LADDER = (1, 2, 4, 8, 16, 32, 64)
WIDTH = 160  # of the table where no terminal says how wide it is
DESCRIPTION = """Say what a run needs, how fast it will be, and which strategy to take.

Takes all arguments of `fit`, and keeps its global batch: data.batch_size x
trainer.accumulate_grad_batches x devices (auto counts as one). data.batch_size is the largest
micro-batch that is considered. Loads the model's configuration alone, no weights, and needs no
GPU: a step is run on tensors without values. All numbers are estimates, 10 % of each memory are
left free. Plans for bf16-mixed where trainer.precision and model.lm.dtype are fp32."""
EPILOG = (
    "example: lit-entrodrop plan --config configs/base.yaml --config "
    "configs/model/llama3.1_8b.yaml --hardware h100 --output plan.yaml"
)


def main(words: Sequence[str]) -> None:
    """Run the command.

    Raises:
        ValueError: if an option is wrong, or nothing fits.
    """
    own, arguments = _parser().parse_known_args(words)
    output = None if own.output is None else Path(own.output)
    _check(own, output)
    hardware = find_hardware(own.hardware)
    config = resolved_config(arguments)
    job = job_of(config)
    options = Options(job, hardware, own.mfu)
    found = [option for size in own.world_size or LADDER for option in options.on(size)]
    if not found:
        raise ValueError(
            f"world_size: expected a number that divides the global batch of "
            f"{job.global_batch_size} rows, got {own.world_size}: change it, data.batch_size or "
            "trainer.accumulate_grad_batches"
        )
    tokens = training_tokens(config, job, own.corpus_tokens)
    console = console_of(WIDTH)
    console.print(table(shown(found), tokens, own.price_per_hour))
    all_epochs = "" if tokens is None else f"{tokens:,.0f} tokens over all epochs; "
    console.print(
        f"{options.sizes.parameters / 1e9:.2f} B parameters, {options.sizes.trainable / 1e9:.2f} B "
        f"trained; {job.global_batch_size} rows of {job.block_size} tokens to a step; {all_epochs}"
        f"devices assumed to reach {own.mfu:.0%} of their peak, and communication to hide under "
        f"{OVERLAP:.0%} of computing. Estimates, not measurements."
    )
    best = cheapest(found)
    if best is None:
        raise ValueError(nothing_fits(found))
    console.print(verdict(found))
    if output is not None:
        output.parent.mkdir(parents=True, exist_ok=True)
        with output.open("x") as file:
            file.write(config_text(best, job))
        console.print(f"config: {output}")


def _parser() -> argparse.ArgumentParser:
    parser = command_parser(
        "plan", DESCRIPTION, EPILOG, usage="%(prog)s [options below] [any argument of fit ...]"
    )
    add = parser.add_argument
    add("--hardware", default="h100", help=f"{', '.join(HARDWARE)} (default: %(default)s)")
    add(
        "--world_size",
        type=int,
        nargs="+",
        metavar="N",
        help=f"devices in all, one number or several (default: {' '.join(map(str, LADDER))})",
    )
    add(
        "--mfu",
        type=float,
        default=0.4,
        metavar="SHARE",
        help="of the peak that devices reach, recomputing included (default: %(default)s)",
    )
    add("--corpus_tokens", type=float, metavar="N", help="tokens of the training split")
    add("--price_per_hour", type=float, metavar="PRICE", help="of one device")
    add("--output", metavar="FILE", help="new YAML file for `fit --config`, beside your configs")
    return parser


def _check(own: argparse.Namespace, output: Path | None) -> None:
    if not 0 < own.mfu <= 1:
        raise ValueError(f"mfu: expected a share above 0 and up to 1, got {own.mfu}: 0.4 is usual")
    for name in ("corpus_tokens", "price_per_hour"):
        value = getattr(own, name)
        if value is not None and not 0 < value < float("inf"):
            raise ValueError(f"{name}: expected a finite number above 0, got {value}: correct it")
    if output is not None and output.exists():
        raise ValueError(f"output: expected a new file, but {output} exists: name another")
