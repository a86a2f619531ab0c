"""`lit-entrodrop doctor`: check a config before an expensive run."""

import argparse
import json
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from lit_entrodrop.cli.fit_config import resolved_config
from lit_entrodrop.cli.noise import lightning_warnings_only
from lit_entrodrop.cli.terminal import command_parser, console_of
from lit_entrodrop.commands.doctor.check import (
    Checked,
    CheckResult,
    Status,
    Theme,
    name_of,
    passed,
    run_check,
)
from lit_entrodrop.commands.doctor.configured_run import ConfiguredRun, configured_run
from lit_entrodrop.commands.doctor.data_checks import DATA
from lit_entrodrop.commands.doctor.model_checks import MODEL
from lit_entrodrop.commands.doctor.model_probe import ModelProbe
from lit_entrodrop.commands.doctor.regularizer_checks import REGULARIZERS
from lit_entrodrop.commands.doctor.regularizer_probe import RegularizerProbe
from lit_entrodrop.commands.doctor.resource_checks import DEVICE, DISK, room_to_load
from lit_entrodrop.commands.doctor.schedule_checks import SCHEDULE
from lit_entrodrop.runs.writing import check_writable, write_whole
from lit_entrodrop.runtime.progress import progress

WIDTH = 120  # characters, if the output is not a terminal
COLORS: dict[Status, str] = {"pass": "green", "warn": "yellow", "fail": "red", "skip": "dim"}
NUMBER_OF_CHECKS = 2 + sum(
    len(theme.checks) for theme in (DEVICE, DATA, DISK, SCHEDULE, MODEL, REGULARIZERS)
)
DESCRIPTION = """Check a config before an expensive run.

Takes all arguments of `fit`. Reads the text and builds the model as `fit` does. Checks tokens,
splits, duplicates, memory, disk and schedule. Then runs a few training steps without updating the
model, to check that packed documents stay apart, that gradients accumulate, and that dropout and
regularizers have the intended effect. Prints one line per check, and remedies at the end. Exits
with status 1 if a check fails, else with 0. Writes nothing into the run folder."""
EPILOG = "example: lit-entrodrop doctor --config configs/base.yaml --config mine.yaml --quick"


def main(args: Sequence[str]) -> None:
    """Run the command; exit with status 1 if a check fails."""
    own, arguments = _parser().parse_known_args(args)
    if own.json is not None:
        check_writable(own.json)
    config = resolved_config(arguments)
    console = console_of(WIDTH)
    found: list[tuple[str, CheckResult]] = []
    with (
        lightning_warnings_only(),  # the checks print what setting up a run would log
        configured_run(config) as run,
        progress("Checking", NUMBER_OF_CHECKS - own.quick, unit="checks") as advance,
    ):
        for theme, result in results_of(run, own.quick):
            if not found or found[-1][0] != theme:
                console.print(f"[bold]{theme}[/bold]")
            found.append((theme, result))
            _show(console, result.status, f"{result.name}: {result.found}")
            advance()
    results = [result for _, result in found]
    console.print(f"[bold]{verdict(results)}[/bold]")
    for status in ("fail", "warn"):
        for result in results:
            if result.status == status and result.remedy:
                _show(console, status, f"{result.name} -> {result.remedy}")
    if own.json is not None:
        write_whole(own.json, report(found))
    if any(result.status == "fail" for result in results):
        sys.exit(1)


def results_of(run: ConfiguredRun, quick: bool) -> Iterator[tuple[str, CheckResult]]:
    """Yield theme and result of each check, the cheapest first; read the text on the way."""
    yield from _results(DEVICE, run)
    reading = run_check(reading_the_text, run)
    yield DATA.name, reading
    if reading.status == "fail":
        others = (DATA, DISK, SCHEDULE, MODEL, REGULARIZERS)
        yield from _all_skipped(others, "the text could not be read")
        return
    for theme in (DATA, DISK, SCHEDULE):
        yield from _results(theme, run)
    if quick:
        yield from _all_skipped((MODEL, REGULARIZERS), "it runs the model, which --quick skips")
    else:
        yield from _results_with_model(run)


def reading_the_text(run: ConfiguredRun) -> CheckResult:
    """Read, split, tokenize and pack the text."""
    run.read_data()
    return passed(run.data.summary().replace("\n", "; "))


def verdict(results: Sequence[CheckResult]) -> str:
    """Return the overall result in one sentence.

    >>> verdict([passed("no duplicates"), CheckResult("warn", "0.9 epochs")])
    '2 checks: 1 passed, 1 warned, 0 failed. The config can be trained; read the warnings first.'
    """
    counts = Counter(result.status for result in results)
    skipped = f", {counts['skip']} skipped" if counts["skip"] else ""
    if counts["fail"]:
        advice = "Fix the failures before training."
    elif counts["warn"]:
        advice = "The config can be trained; read the warnings first."
    else:
        advice = "The config can be trained."
    return (
        f"{len(results)} checks: {counts['pass']} passed, {counts['warn']} warned, "
        f"{counts['fail']} failed{skipped}. {advice}"
    )


def report(found: Sequence[tuple[str, CheckResult]]) -> str:
    """Return all results as JSON, for other programs."""
    checks = [{"theme": theme, **asdict(result)} for theme, result in found]
    status = "fail" if any(result.status == "fail" for _, result in found) else "pass"
    return json.dumps({"schema": 1, "status": status, "checks": checks}, indent=2)


def _results_with_model(run: ConfiguredRun) -> Iterator[tuple[str, CheckResult]]:
    found: list[tuple[str, CheckResult]] = []

    def building_the_model(run: ConfiguredRun) -> CheckResult:
        room = room_to_load(run)
        if room.status != "pass":
            return room
        run.with_model(run_checks)
        trainable, device = run.sizes.trainable, run.trainer.strategy.root_device.type
        return passed(
            f"{run.sizes.parameters:,} parameters, {trainable:,} of them trainable; checked on "
            f"{device} in {run.trainer.precision}"
        )

    def run_checks() -> None:
        probe = ModelProbe(run)
        found.extend(_results(MODEL, probe))
        found.extend(_results(REGULARIZERS, RegularizerProbe(probe)))

    yield MODEL.name, run_check(building_the_model, run)
    yield from found or _all_skipped((MODEL, REGULARIZERS), "the model could not be built")


def _all_skipped(themes: Sequence[Theme[Any]], why: str) -> Iterator[tuple[str, CheckResult]]:
    for theme in themes:
        for check in theme.checks:
            yield theme.name, CheckResult("skip", why, name=name_of(check))


def _results(theme: Theme[Checked], checked: Checked) -> Iterator[tuple[str, CheckResult]]:
    return ((theme.name, run_check(check, checked)) for check in theme.checks)


def _show(console: Console, status: Status, text: str) -> None:
    table = Table.grid(padding=(0, 1))
    table.add_column(width=4)
    table.add_column()
    table.add_row(f"[{COLORS[status]}]{status}[/]", escape(text))
    console.print(table)


def _parser() -> argparse.ArgumentParser:
    parser = command_parser(
        "doctor",
        DESCRIPTION,
        EPILOG,
        usage="%(prog)s [--quick] [--json FILE] [any argument of fit ...]",
    )
    parser.add_argument("--quick", action="store_true", help="Skip the checks that run the model.")
    parser.add_argument(
        "--json", type=Path, metavar="FILE", help="Path to a JSON file for the results."
    )
    return parser
