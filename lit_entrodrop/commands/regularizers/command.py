"""`lit-entrodrop regularizers`: which there are, and how each is set."""

import argparse
import json
import sys
from collections.abc import Sequence
from contextlib import redirect_stdout
from dataclasses import asdict
from typing import Any

from rich.text import Text

from lit_entrodrop.cli.messages import did_you_mean
from lit_entrodrop.cli.terminal import command_parser, console_of
from lit_entrodrop.commands.regularizers.combinations import refusals, refusals_of
from lit_entrodrop.commands.regularizers.description import Description
from lit_entrodrop.commands.regularizers.finding import Catalog, find_all
from lit_entrodrop.commands.regularizers.showing import (
    show_explanation,
    show_listing,
    show_refusals,
    to_json,
)

WIDTH = 100  # where no terminal says how wide it is
DESCRIPTION = """Show which regularizers there are.

They come with lit-entrodrop, or an installed package announces them. A config names each by its
class alone, as in `class_path: EntroDrop`. The cost of a step is told in passes through the model,
of which plain training takes one. Whether two can run together is tried out: both take a step of a
toy model at their defaults."""
EPILOG = """examples:
  lit-entrodrop regularizers
  lit-entrodrop regularizers --explain EntroDrop
  lit-entrodrop regularizers --combinations --json"""


def main(words: Sequence[str]) -> None:
    """Run the command.

    Raises:
        ValueError: if there is no regularizer of that name.
    """
    parser = _parser()
    own, rest = parser.parse_known_args(words)
    if rest:
        parser.error(f"expected options alone, got {' '.join(rest)}: --explain NAME shows one")
    if own.json:
        # The code of strangers is run, and may print.
        with redirect_stdout(sys.stderr):
            report = _report(own, find_all())
        print(json.dumps(report, indent=2))
    else:
        _show(own, find_all())


def _show(own: argparse.Namespace, catalog: Catalog) -> None:
    console = console_of(WIDTH)
    described = list(catalog.descriptions.values())
    if own.explain is not None:
        explained = _named(own.explain, catalog)
        refused = refusals_of(explained, described)
        show_explanation(console, explained, refused, len(described) - 1)
        return
    if own.combinations:
        show_refusals(console, refusals(described), len(described))
    else:
        show_listing(console, described)
    for problem in catalog.problems:
        console.print(Text(f"not usable: {problem}", style="yellow"))


def _report(own: argparse.Namespace, catalog: Catalog) -> dict[str, Any]:
    described = list(catalog.descriptions.values())
    if own.explain is not None:
        explained = _named(own.explain, catalog)
        refused = [asdict(each) for each in refusals_of(explained, described)]
        return {"schema": 1, "regularizer": to_json(explained), "refused": refused}
    if own.combinations:
        names = [each.name for each in described]
        refused = [asdict(each) for each in refusals(described)]
        return {"schema": 1, "regularizers": names, "refused": refused}
    return {
        "schema": 1,
        "regularizers": [to_json(each) for each in described],
        "problems": catalog.problems,
    }


def _named(name: str, catalog: Catalog) -> Description:
    by_path = {each.class_path: each for each in catalog.descriptions.values()}
    named = {**catalog.descriptions, **by_path}
    if name in named:
        return named[name]
    remedy = did_you_mean(name, named, "see lit-entrodrop regularizers")
    raise ValueError(f"explain: expected the name of a regularizer, got {name}: {remedy}")


def _parser() -> argparse.ArgumentParser:
    parser = command_parser("regularizers", DESCRIPTION, EPILOG)
    shown = parser.add_mutually_exclusive_group()
    shown.add_argument(
        "--explain", metavar="NAME", help="show one: formula, settings, costs, and its YAML block"
    )
    shown.add_argument(
        "--combinations", action="store_true", help="show which pairs cannot run together, and why"
    )
    parser.add_argument("--json", action="store_true", help="print JSON, for other programs")
    return parser
