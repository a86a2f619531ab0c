"""`lit-entrodrop tune`: search for the settings that give the best model, and test them."""

import argparse
from argparse import ArgumentError
from collections.abc import Sequence
from pathlib import Path

from lit_entrodrop.cli.terminal import command_parser, console_of, refuse_ranks
from lit_entrodrop.commands.compare.command import WIDTH, add_worker_options, workers_of
from lit_entrodrop.commands.tune.search.budget import Limits

DESCRIPTION = """Search for the best settings and methods, and test them against plain fine-tuning.

Takes the arguments of `fit` (--config, --data.corpus, ...) and a budget. Each trial is a training
run at other settings: learning rate, epochs, weight decay, method and strength, average of the
weights. Optuna (TPE) selects them by the validation loss at the best epoch, and stops runs whose
loss rises and is above the median of the others. The number of epochs changes the length of the
learning rate schedule too. Half of the trials are plain fine-tuning, so that its learning rate,
epochs and weight decay are tuned as well as those of the methods.

Part of the budget is reserved for the final runs: the best three trials with a method and the best
plain one are trained with new seeds. The method with the lowest validation loss is compared with
plain on the test split. So the luck of a search is not reported as a gain.

The output folder contains recipe.yaml (a config for `fit`: the winner if it is better, otherwise
plain), model/ (the exported model), report.html and tune.json. To continue an interrupted search,
start the same command again; a larger --budget continues a finished one (see docs/tune.md).

Needs: pip install 'lit-entrodrop[tune]'."""
EPILOG = """examples:
  lit-entrodrop tune --config configs/base.yaml --config configs/tune/quickstart.yaml --budget 10m
  lit-entrodrop tune --config configs/base.yaml --config configs/model/tiny_base.yaml \\
      --data.corpus notes.jsonl --data.test 0.1 --budget 2h --parallel 2
  lit-entrodrop tune --config mine.yaml --space my_space.yaml --trials 60 --devices 0,1,2,3"""
USAGE = """%(prog)s [arguments of fit] (--budget TIME | --trials N) [options]"""


def main(arguments: Sequence[str]) -> None:
    """Run the command.

    Raises:
        ValueError: If an option, the config or the space is wrong, the budget is too small, or runs
            fail.
    """
    options, of_fit = _parser().parse_known_args(arguments)
    refuse_ranks("tune", "runs")
    if options.budget is None and options.trials is None:
        raise ValueError("budget: expected --budget or --trials, got neither: add --budget 2h")
    workers = workers_of(options)
    limits = Limits.parse(options.budget, options.trials, options.seeds)
    console = console_of(WIDTH)
    # Takes seconds.
    from lit_entrodrop.cli.fit_config import resolved_config
    from lit_entrodrop.commands.tune.tuning import tune

    try:
        config = resolved_config(of_fit)
    except ArgumentError as error:
        raise ValueError(f"{error} (see lit-entrodrop tune --help)") from None
    try:
        tune(config, options.space, limits, Path(options.output), workers, console)
    except KeyboardInterrupt:
        console.print("Stopped. Start the same command again to resume: finished trials are kept.")
        raise


def _parser() -> argparse.ArgumentParser:
    parser = command_parser("tune", DESCRIPTION, EPILOG, USAGE)
    parser.add_argument(
        "--budget",
        metavar="TIME",
        help="Time for search and final runs, such as 40m, 2h or 1h30m.",
    )
    parser.add_argument(
        "--trials",
        type=int,
        metavar="N",
        help="Number of trials, half of them plain; the final runs follow. With --budget: at most.",
    )
    parser.add_argument(
        "--space",
        default="configs/tune/space.yaml",
        metavar="FILE",
        help="Path to the space of the search; copy and edit the default, %(default)s.",
    )
    parser.add_argument(
        "--seeds",
        type=int,
        default=3,
        metavar="N",
        help="Number of seeds of the final runs (default: %(default)s).",
    )
    parser.add_argument(
        "--output",
        default="runs/tune",
        metavar="FOLDER",
        help="Folder of all runs and results (default: %(default)s).",
    )
    add_worker_options(parser)
    return parser
