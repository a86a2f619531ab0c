"""The command `lit-entrodrop report`."""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from lit_entrodrop.cli.parsing import OneLineErrors
from lit_entrodrop.commands.report.page import write_report

DESCRIPTION = """Explain one or several runs on a page, report.html: the finding, its numbers and
what to do next, then all curves. The page is a single file that needs no network; its figures are
also written to figures/, as SVG and PNG."""


def main(args: Sequence[str]) -> None:
    """Run the command.

    Args:
        args: Command line arguments.
    """
    parser = OneLineErrors(prog="lit-entrodrop report", description=DESCRIPTION)
    parser.add_argument(
        "--runs", nargs="+", type=str, required=True, help="Run folders that `fit` wrote."
    )
    parser.add_argument(
        "--output",
        type=str | None,
        help="Folder to write to (default: the run folder, if there is only one run).",
    )
    parser.add_argument(
        "--title", type=str, default="", help="Subject of the page, below its headline."
    )
    given = parser.parse_args(list(args))
    folders = [Path(run) for run in given.runs]
    if given.output is None and len(folders) > 1:
        parser.error("expected --output for several runs, got none: name a folder for the page")
    output = Path(given.output or folders[0])
    path = write_report(output, named(folders), title=given.title)
    Console().print(f"Report: {path}", soft_wrap=True)


def named(folders: Sequence[Path]) -> dict[str, Path]:
    """Return folders by name: the last part of the path, or all of it where that is not unique.

    >>> list(named([Path("runs/a"), Path("runs/b")])), list(named([Path("x/a"), Path("y/a")]))
    (['a', 'b'], ['x/a', 'y/a'])
    """
    counts = Counter(folder.resolve().name for folder in folders)
    return {
        folder.resolve().name if counts[folder.resolve().name] == 1 else str(folder): folder
        for folder in folders
    }
