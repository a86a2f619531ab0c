"""Explain a regularizer, try combinations, and print both or all as JSON."""

import json
import sys
from argparse import ArgumentError
from contextlib import redirect_stdout
from dataclasses import asdict
from typing import Any

from rich.console import Console
from rich.text import Text

from lit_entrodrop.cli.parsing import OneLineErrors
from lit_entrodrop.commands.regularizers.catalog import Catalog, find_all
from lit_entrodrop.commands.regularizers.combinations import refusals
from lit_entrodrop.commands.regularizers.description import Description, describe
from lit_entrodrop.commands.regularizers.showing import show_explanation, show_refusals, to_json
from lit_entrodrop.runtime.spelling import did_you_mean
from regularizers import Regularizer
from regularizers.discovery import is_complete


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
    remedy = did_you_mean(name, named, "")
    if "." in name and not remedy:
        return _of_module(name)
    raise ValueError(
        f"explain: expected the name of a regularizer, got {name}: "
        f"{remedy or 'see lit-entrodrop regularizers'}"
    )


def _of_module(path: str) -> Description:
    """Describe a regularizer of a module of the user, by the path of its class."""
    parser = OneLineErrors(exit_on_error=False)
    parser.add_argument("--explain", type=type[Regularizer])
    try:
        kind = parser.parse_args([f"--explain={path}"]).explain
    except (ArgumentError, ImportError, AttributeError) as error:
        raise ValueError(f"explain: cannot import {path}: {error}: correct the path") from error
    if not is_complete(kind):
        raise ValueError(
            f"explain: expected a regularizer whose settings all have defaults, got {path}: give "
            "each a default"
        )
    return describe(kind, path, kind.__module__, "")
