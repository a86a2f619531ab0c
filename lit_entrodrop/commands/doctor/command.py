"""`lit-entrodrop doctor`: check a config before an expensive run."""

import argparse
import json
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, TypeVar

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from lit_entrodrop.cli.lit_cli import resolved_config
from lit_entrodrop.cli.terminal import command_parser, console_of
from lit_entrodrop.commands.doctor.check import (
    Check,
    Status,
    Theme,
    any_fails,
    name_of,
    passed,
    run_check,
)
from lit_entrodrop.commands.doctor.data import DATA
from lit_entrodrop.commands.doctor.model import MODEL
from lit_entrodrop.commands.doctor.model_probe import Live
from lit_entrodrop.commands.doctor.regularizing import REGULARIZERS
from lit_entrodrop.commands.doctor.resources import DEVICE, DISK, room_to_load
from lit_entrodrop.commands.doctor.schedule import SCHEDULE
from lit_entrodrop.commands.doctor.subject import Subject, subject_of

S = TypeVar("S")
WIDTH = 120  # where no terminal says how wide it is
COLORS: dict[Status, str] = {"pass": "green", "warn": "yellow", "fail": "red", "skip": "dim"}
DESCRIPTION = """Check a config before an expensive run.

Takes all arguments of `fit`. Reads the text and builds the model as `fit` does, looks at tokens,
splits, duplicates, memory, disk and schedule, and runs a few real training steps without learning
from them: whether packed documents stay apart, gradients accumulate, dropout and regularizers do
what they are meant to. Prints a line for each check, and what to do where it warns or fails. Exits
with 1 if a check fails, else with 0. Never writes into the run's folder, and trains nothing."""
EPILOG = "example: lit-entrodrop doctor --config configs/base.yaml --config mine.yaml --quick"
QUICK = "it runs the model, which --quick leaves out"


def main(words: Sequence[str]) -> None:
    """Run the command; exit with 1 if a check fails.

    Raises:
        ValueError: if the config is wrong.
    """
    own, arguments = _parser().parse_known_args(words)
    if own.json is not None:
        Path(own.json).parent.mkdir(parents=True, exist_ok=True)
    config = resolved_config(arguments)
    console = console_of(WIDTH)
    found: list[tuple[str, Check]] = []
    with subject_of(config) as subject:
        for theme, check in checks_of(subject, own.quick):
            if not found or found[-1][0] != theme:
                console.print(f"[bold]{theme}[/bold]")
            found.append((theme, check))
            _show(console, check)
    counts = Counter(check.status for _, check in found)
    told = ", ".join(f"{counts[status]} {status}" for status in COLORS if counts[status])
    console.print(f"[bold]{told}[/bold]")
    if own.json is not None:
        Path(own.json).write_text(report(found))
    if any_fails(check for _, check in found):
        sys.exit(1)


def checks_of(subject: Subject, quick: bool) -> Iterator[tuple[str, Check]]:
    """Run all checks on a subject, those that cost least first.

    Args:
        subject: whose text has not been read yet.
        quick: leave out what runs the model.

    Yields:
        The theme of each check, and what it found.
    """
    yield from _of(DEVICE, subject)
    reading = run_check(reading_the_text, subject)
    yield DATA.name, reading
    if reading.status == "fail":
        others = (DATA, DISK, SCHEDULE, MODEL, REGULARIZERS)
        yield from _all_skipped(others, "there is no text to look at")
        return
    for theme in (DATA, DISK, SCHEDULE):
        yield from _of(theme, subject)
    if quick:
        yield from _all_skipped((MODEL, REGULARIZERS), QUICK)
    else:
        yield from _with_model(subject)


def reading_the_text(subject: Subject) -> Check:
    """Read, split, tokenise and pack the text."""
    subject.read_data()
    return passed(subject.data.summary().replace("\n", "; "))


def report(found: Sequence[tuple[str, Check]]) -> str:
    """Return what was found as JSON, for other programs."""
    checks = [{"theme": theme, **asdict(check)} for theme, check in found]
    status = "fail" if any_fails(check for _, check in found) else "pass"
    return json.dumps({"schema": 1, "status": status, "checks": checks}, indent=2)


def _with_model(subject: Subject) -> Iterator[tuple[str, Check]]:
    found: list[tuple[str, Check]] = []

    def building_the_model(subject: Subject) -> Check:
        room = room_to_load(subject)
        if room.status != "pass":
            return room
        subject.examining(examine)
        trained, where = subject.sizes.trainable, subject.trainer.strategy.root_device.type
        return passed(
            f"{subject.sizes.parameters:,} parameters, {trained:,} of them trained; examined on "
            f"{where} in {subject.trainer.precision}"
        )

    def examine() -> None:
        live = Live(subject)
        for theme in (MODEL, REGULARIZERS):
            found.extend(_of(theme, live))

    yield MODEL.name, run_check(building_the_model, subject)
    yield from found or _all_skipped((MODEL, REGULARIZERS), "the model is not built")


def _all_skipped(themes: Sequence[Theme[Any]], why: str) -> Iterator[tuple[str, Check]]:
    for theme in themes:
        for check in theme.checks:
            yield theme.name, Check("skip", why, name=name_of(check))


def _of(theme: Theme[S], subject: S) -> Iterator[tuple[str, Check]]:
    return ((theme.name, run_check(check, subject)) for check in theme.checks)


def _show(console: Console, check: Check) -> None:
    table = Table.grid(padding=(0, 1))
    table.add_column(width=4)
    table.add_column()
    color = COLORS[check.status]
    table.add_row(f"[{color}]{check.status}[/{color}]", escape(f"{check.name}: {check.found}"))
    if check.remedy:
        table.add_row("", escape(f"-> {check.remedy}"))
    console.print(table)


def _parser() -> argparse.ArgumentParser:
    parser = command_parser(
        "doctor",
        DESCRIPTION,
        EPILOG,
        usage="%(prog)s [--quick] [--json FILE] [any argument of fit ...]",
    )
    parser.add_argument("--quick", action="store_true", help="leave out what runs the model")
    parser.add_argument("--json", metavar="FILE", help="write what was found to a file too")
    return parser
