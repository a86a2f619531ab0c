"""Results of a comparison on the terminal."""

from collections.abc import Mapping
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from lit_entrodrop.commands.report.comparison_sections.conclusion import headline
from lit_entrodrop.commands.report.rendering.formatting import (
    LOSS,
    NOTHING,
    by_group,
    difference,
    number,
    title,
)

STYLES = {"better": "green", "worse": "red"}


def show(comparison: Mapping[str, Any], console: Console) -> None:
    """Print the verdict, the table, the contrasts and the notes."""
    console.print(f"{headline(comparison)}.", style="bold", markup=False, highlight=False)
    console.print(table(comparison))
    # The table has the differences from the baseline.
    for contrast in comparison["contrasts"]:
        if contrast["is_contrast"]:
            console.print(contrast["sentence"], markup=False, highlight=False)
    if ladder := comparison.get("ladder"):
        console.print(ladder_table(ladder))
        for arm in ladder["arms"].values():
            console.print(arm["sentence"], markup=False, highlight=False)
    for note in comparison["notes"]:
        console.print(f"• {note}", style="dim", markup=False, highlight=False)


def table(comparison: Mapping[str, Any]) -> Table:
    """Return a table of all metrics, with a column for each arm."""
    arms = comparison["arms"]
    result = Table(
        title=f"{escape(comparison['title'])}: loss in nats per token on the "
        f"{comparison['split']} split, mean over seeds",
        caption=f"Next to a mean: its difference from {escape(comparison['baseline'])}, of losses "
        "with the 95% interval",
    )
    result.add_column("")
    for name, arm in arms.items():
        heading = escape("\n".join(filter(None, [name, arm["chosen"]])))
        result.add_column(heading, justify="right")
    for group, metrics in by_group(n for arm in arms.values() for n in arm["metrics"]).items():
        for metric in metrics:
            cells = [_cell(metric, arm["metrics"].get(metric), group) for arm in arms.values()]
            result.add_row(title(metric), *cells, end_section=metric == metrics[-1])
    result.add_row("verdict", *(_verdict(arm["verdict"]) for arm in arms.values()))
    return result


def ladder_table(ladder: Mapping[str, Any]) -> Table:
    """Return a table of the losses on each part of the text."""
    result = Table(title="Loss on parts of the training text, mean over seeds")
    result.add_column("share")
    names = [ladder["baseline"], *ladder["arms"]]
    for name in ("tokens", *names):
        result.add_column(escape(name), justify="right")
    for rung in ladder["rungs"]:
        is_of_arms = rung["share"] == ladder["at"]
        means = [arm["mean"] if is_of_arms else None for arm in ladder["arms"].values()]
        cells = [NOTHING if each is None else number(LOSS, each) for each in (rung["mean"], *means)]
        result.add_row(f"{rung['share']:.0%}", f"{rung['tokens']:,}", *cells)
    return result


def _cell(metric: str, found: Mapping[str, Any] | None, group: str) -> str:
    if found is None:
        return NOTHING
    mean = number(metric, found["mean"])
    apart, interval = difference(metric, found)
    if not apart:
        return mean
    if group == "others":
        return f"{mean} ({apart})"
    return escape(f"{mean}\n{apart} {interval}".rstrip())


def _verdict(verdict: str | None) -> str:
    style = STYLES.get(verdict or "")
    return f"[{style}]{verdict}[/]" if style else verdict or "baseline"
