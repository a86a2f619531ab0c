"""Explain a regularizer, try combinations, and print both or all as JSON."""

import json
import sys
from contextlib import redirect_stdout
from dataclasses import asdict
from typing import Any

from rich.console import Console
from rich.text import Text

from lit_entrodrop.cli.messages import did_you_mean
from lit_entrodrop.commands.regularizers.catalog import Catalog, find_all
from lit_entrodrop.commands.regularizers.combinations import refusals
from lit_entrodrop.commands.regularizers.description import Description
from lit_entrodrop.commands.regularizers.showing import show_explanation, show_refusals, to_json


def show(console: Console, explain: str | None) -> None:
    """Explain the named regularizer, or show which pairs cannot run together."""
    catalog = find_all()
    described = list(catalog.descriptions.values())
    if explain is not None:
        explained = _named(explain, catalog)
        refused = refusals(described, explained)
        show_explanation(console, explained, refused, len(described) - 1)
        return
    show_refusals(console, refusals(described), len(described))
    for problem in catalog.problems:
        console.print(Text(f"not usable: {problem}", style="yellow"))


def print_json(explain: str | None, combinations: bool) -> None:
    """Print the named regularizer, the refused pairs, or all regularizers as JSON."""
    # Third-party code runs here, and may print.
    with redirect_stdout(sys.stderr):
        report = _report(explain, combinations, find_all())
    print(json.dumps(report, indent=2))


def _report(explain: str | None, combinations: bool, catalog: Catalog) -> dict[str, Any]:
    described = list(catalog.descriptions.values())
    if explain is not None:
        explained = _named(explain, catalog)
        refused = [asdict(each) for each in refusals(described, explained)]
        return {"schema": 1, "regularizer": to_json(explained), "refused": refused}
    if combinations:
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
