"""`lit-entrodrop compare`: train arms at matched seeds and report which is better."""

import argparse
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from lit_entrodrop.cli.terminal import command_parser, console_of, refuse_ranks
from lit_entrodrop.commands.compare.planning.settings import read_settings
from lit_entrodrop.commands.compare.running.process_pool import Workers
from lit_entrodrop.runs.writing import free_folder

# Options that need --config, as in the namespace of the parser.
ONLY_WITH_CONFIG = ("base", "arms", "ladder", "import")
WIDTH = 170  # characters, without a terminal
DESCRIPTION = """Train arms at matched seeds, data order and token budget; report which is better.

A config defines what all arms share (base), what each arm adds (arms), the seeds, the baseline
and, optionally, strengths to try. configs/comparisons/entrodrop.yaml explains each key. To continue
an interrupted comparison, start the same command again: finished runs are not trained again, the
others resume from their last checkpoint. A run whose settings have changed is never overwritten.

The strength is selected on the validation split; results are reported on the test split
(data.test), so that no arm profits from the selection. Differences from the baseline have 95%
intervals, over seeds or, with one seed, over documents. p values are corrected for multiple
comparisons. The output folder contains a report, and comparison.json (see docs/compare.md)."""
EPILOG = """examples:
  lit-entrodrop compare --config configs/comparisons/quickstart.yaml
  lit-entrodrop compare --config mine.yaml --devices 0,1,2,3
  lit-entrodrop compare --config configs/comparisons/baselines.yaml --base mine.yaml
  lit-entrodrop compare --runs runs/plain runs/entrodrop
  lit-entrodrop compare --runs plain=runs/a mine=runs/b random=runs/c --contrast mine random"""


def main(arguments: Sequence[str]) -> None:
    """Run the command.

    Raises:
        ValueError: If an option or the config is wrong, or a run failed.
    """
    options = _parser().parse_args(arguments)
    refuse_ranks("compare", "runs")
    if options.config is not None and (options.baseline or options.contrast):
        raise ValueError(
            "baseline and contrast: expected --runs with these options, got --config: set them "
            "in the config"
        )
    if options.runs is not None and any(getattr(options, name) for name in ONLY_WITH_CONFIG):
        raise ValueError(
            f"{', '.join(ONLY_WITH_CONFIG)}: expected --config with these options, got --runs: "
            "give a config"
        )
    console = console_of(WIDTH)
    try:
        if options.config is not None:
            _compare(options, console)
        else:
            _compare_existing(options, console)
    except KeyboardInterrupt:
        console.print("Stopped. Start the same command again to resume: finished runs are kept.")
        raise


def _compare(options: argparse.Namespace, console: Console) -> None:
    changes = {} if options.ladder is None else {"ladder": _shares(options.ladder)}
    settings, workers = read_settings(Path(options.config), changes), workers_of(options)
    settings = settings.with_base(options.base)
    if options.arms:
        settings = settings.with_arms(options.arms)
    console.print(f"Planning {settings.run_count} runs.")
    # Takes seconds.
    from lit_entrodrop.commands.compare.comparing import compare

    name = "_".join(Path(file).stem for file in (options.config, *options.base[-1:]))
    output = options.output or (not options.base and settings.output) or f"runs/{name}"
    compare(settings, Path(output), workers, console, list(map(Path, getattr(options, "import"))))


def _compare_existing(options: argparse.Namespace, console: Console) -> None:
    console.print(f"Reading {len(options.runs)} runs.")
    from lit_entrodrop.commands.compare.comparing import compare_existing

    output = Path(options.output) if options.output else free_folder(Path("runs/comparison"))
    contrasts = list(map(tuple, options.contrast))
    compare_existing(options.runs, output, options.baseline, contrasts, console)


def _shares(text: str) -> list[float]:
    try:
        return [float(share) for share in text.split(",")]
    except ValueError:
        raise ValueError(
            f"ladder: expected shares, got {text}: write for example 0.25,0.5,1"
        ) from None


def workers_of(options: argparse.Namespace) -> Workers:
    """Return the workers that ``--parallel`` or ``--devices`` describes.

    Raises:
        ValueError: If the value is wrong.
    """
    if options.devices is None:
        if options.parallel < 1:
            raise ValueError(f"parallel: expected 1 or more, got {options.parallel}: give a number")
        return Workers(options.parallel)
    devices = tuple(device.strip() for device in options.devices.split(","))
    if not all(devices) or len(set(devices)) < len(devices):
        raise ValueError(
            f"devices: expected different GPUs, got {options.devices}: write for example 0,1"
        )
    return Workers(len(devices), devices)


def _parser() -> argparse.ArgumentParser:
    parser = command_parser("compare", DESCRIPTION, EPILOG)
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument(
        "--config",
        metavar="FILE",
        help="Path to the config of the comparison, or name of a bundled one.",
    )
    source.add_argument(
        "--runs",
        nargs="+",
        metavar="[NAME=]FOLDER",
        help="Folders of existing runs; runs that differ only in their seed are one arm.",
    )
    parser.add_argument(
        "--output", metavar="FOLDER", help="Folder of all runs and results (default: runs/NAME)."
    )
    parser.add_argument(
        "--baseline", metavar="NAME", help="Arm to compare all others with; only with --runs."
    )
    parser.add_argument(
        "--contrast",
        nargs=2,
        action="append",
        default=[],
        metavar=("ONE", "OTHER"),
        help="Two further arms to compare; only with --runs; can be repeated.",
    )
    parser.add_argument(
        "--base",
        nargs="+",
        default=[],
        metavar="FILE",
        help="Config files that all arms share, instead of those of the comparison, such as your "
        "model and corpus; only with --config.",
    )
    parser.add_argument(
        "--arms",
        nargs="+",
        metavar="NAME",
        help="Arms to train besides the baseline (default: all); only with --config.",
    )
    parser.add_argument(
        "--ladder",
        metavar="0.25,0.5,1",
        help="Shares of the training text for the unique-data multiplier: the baseline is trained "
        "on all of them, each other arm on the largest one below 1; only with --config.",
    )
    parser.add_argument(
        "--import",
        nargs="+",
        default=[],
        metavar="FILE",
        help="Files comparison.json of earlier comparisons, of this or another machine; only with "
        "--config. Their runs with the same settings are not trained again.",
    )
    add_worker_options(parser)
    return parser


def add_worker_options(parser: argparse.ArgumentParser) -> None:
    """Add ``--parallel`` and ``--devices`` to a parser."""
    how = parser.add_mutually_exclusive_group()
    how.add_argument(
        "--parallel",
        type=int,
        default=1,
        metavar="N",
        help="Number of runs at a time (default: %(default)s).",
    )
    how.add_argument(
        "--devices",
        metavar="0,1,...",
        help="GPUs that each train one run at a time; for runs that use a single device.",
    )
