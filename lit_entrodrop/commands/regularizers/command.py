"""`lit-entrodrop regularizers`: list the regularizers, or explain one.

The list reads source files and metadata; only the options import PyTorch and third-party code.
"""

import argparse
from collections.abc import Sequence

from lit_entrodrop.cli.terminal import command_parser, console_of
from lit_entrodrop.commands.regularizers.listing import show_listing

WIDTH = 100  # characters, without a terminal
DESCRIPTION = """List the regularizers of lit-entrodrop and those that installed packages announce.

A config names each by its class alone, as in `class_path: EntroDrop`. --explain gives the cost of a
step in forward passes through the model; plain training takes one. --combinations tries each pair:
both take a training step of a toy model at their defaults."""
EPILOG = """examples:
  lit-entrodrop regularizers
  lit-entrodrop regularizers --explain EntroDrop
  lit-entrodrop regularizers --combinations --json"""


def main(args: Sequence[str]) -> None:
    """Run the command."""
    parser = _parser()
    own, rest = parser.parse_known_args(args)
    if rest:
        parser.error(f"expected only options, got {' '.join(rest)}: --explain NAME shows one")
    if not (own.json or own.combinations or own.explain is not None):
        show_listing(console_of(WIDTH))
        return
    from lit_entrodrop.commands.regularizers import details

    if own.json:
        details.print_json(own.explain, own.combinations)
    else:
        details.show(console_of(WIDTH), own.explain)


def _parser() -> argparse.ArgumentParser:
    parser = command_parser("regularizers", DESCRIPTION, EPILOG)
    shown = parser.add_mutually_exclusive_group()
    shown.add_argument(
        "--explain",
        metavar="NAME",
        help="Regularizer to explain: formula, settings, cost, and a YAML block to paste.",
    )
    shown.add_argument(
        "--combinations", action="store_true", help="Show which pairs cannot run together, and why."
    )
    parser.add_argument(
        "--json", action="store_true", help="Print JSON for programs, needs and costs included."
    )
    return parser
