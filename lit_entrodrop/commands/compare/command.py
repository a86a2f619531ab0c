"""`lit-entrodrop compare`: arms at matched seeds, trained where they are not, and judged."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from lit_entrodrop.cli.terminal import command_parser, console_of, refuse_ranks
from lit_entrodrop.commands.compare.comparing import compare, compare_given
from lit_entrodrop.commands.compare.process_pool import Workers
from lit_entrodrop.commands.compare.settings import read_settings
from lit_entrodrop.runs.writing import free_folder

WIDTH = 170  # of the table where no terminal says how wide it is
DESCRIPTION = """Train arms at matched seeds, data order and token budget, and say which is better.

A config names what all arms share (base), what each adds (arms), the seeds, the arm of reference
(baseline) and, if you like, strengths to try: configs/comparisons/entrodrop.yaml explains each key.
What is finished is not trained again, and what was killed goes on from its last checkpoint: start
the same command again. A run whose settings have changed is refused, never written over.

A strength is chosen by the validation split and told of the test split (data.test), so that no arm
profits from the choice. Differences to the baseline come with 95 % intervals: over seeds, or over
documents where there is one seed; p values are corrected for the number of arms. Leaves
comparison.json, which docs/compare.md explains, and a report in the output folder."""
EPILOG = """examples:
  lit-entrodrop compare --config configs/comparisons/quickstart.yaml
  lit-entrodrop compare --config mine.yaml --devices 0,1,2,3
  lit-entrodrop compare --runs runs/plain runs/entrodrop
  lit-entrodrop compare --runs plain=runs/a ours=runs/b random=runs/c --contrast ours random"""


def main(words: Sequence[str]) -> None:
    """Run the command.

    Raises:
        ValueError: if an option or the config is wrong, or a run failed.
    """
    own = _parser().parse_args(words)
    refuse_ranks("compare", "runs")
    console = console_of(WIDTH)
    _check(own)
    try:
        if own.config is not None:
            settings = read_settings(Path(own.config))
            default = settings.output or f"runs/{Path(own.config).stem}"
            compare(settings, Path(own.output or default), _workers(own), console)
        else:
            output = Path(own.output) if own.output else free_folder(Path("runs/comparison"))
            compare_given(own.runs, output, own.baseline, list(map(tuple, own.contrast)), console)
    except KeyboardInterrupt:
        console.print("Ended. The same command goes on: finished runs are kept, others resumed.")
        sys.exit(130)


def _check(own: argparse.Namespace) -> None:
    if own.config is not None and (own.baseline or own.contrast):
        raise ValueError(
            "baseline and contrast: expected beside --runs, got --config: name them in the config"
        )


def _workers(own: argparse.Namespace) -> Workers:
    if own.devices is None:
        if own.parallel < 1:
            raise ValueError(f"parallel: expected 1 or more, got {own.parallel}: give a number")
        return Workers(own.parallel)
    devices = tuple(device.strip() for device in own.devices.split(","))
    if not all(devices) or len(set(devices)) < len(devices):
        raise ValueError(f"devices: expected different ones, such as 0,1, got {own.devices}")
    return Workers(len(devices), devices)


def _parser() -> argparse.ArgumentParser:
    parser = command_parser("compare", DESCRIPTION, EPILOG)
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument(
        "--config", metavar="FILE", help="what to compare; a file or a ready config"
    )
    source.add_argument(
        "--runs",
        nargs="+",
        metavar="[NAME=]FOLDER",
        help="runs that `fit` has made; those that differ in their seed alone are one arm",
    )
    parser.add_argument(
        "--output", metavar="FOLDER", help="for all runs and results (default: runs/NAME)"
    )
    parser.add_argument("--baseline", metavar="NAME", help="arm of reference, with --runs")
    parser.add_argument(
        "--contrast",
        nargs=2,
        action="append",
        default=[],
        metavar=("ONE", "OTHER"),
        help="two more arms to compare, with --runs; may be repeated",
    )
    how = parser.add_mutually_exclusive_group()
    how.add_argument(
        "--parallel", type=int, default=1, metavar="N", help="runs at once (default: %(default)s)"
    )
    how.add_argument(
        "--devices",
        metavar="0,1,...",
        help="GPUs, of which each runs one arm at a time; for runs of one device each",
    )
    return parser
