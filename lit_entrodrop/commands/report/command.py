"""`lit-entrodrop report`: explain one or several runs on a page."""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from lit_entrodrop.cli.terminal import command_parser
from lit_entrodrop.commands.report.page import write_report

DESCRIPTION = """Explain one or several runs on a page, report.html.

It starts with the finding, its numbers and what to do next; all curves follow. The page is a single
file that needs no network; its figures are also written to figures/, as SVG and PNG."""
EPILOG = """examples:
  lit-entrodrop report --runs runs/plain
  lit-entrodrop report --runs runs/plain runs/entrodrop --output runs/both"""


def main(args: Sequence[str]) -> None:
    """Run the command."""
    parser = command_parser("report", DESCRIPTION, EPILOG)
    parser.add_argument(
        "--runs", nargs="+", required=True, metavar="FOLDER", help="Run folders that `fit` wrote."
    )
    parser.add_argument(
        "--output",
        metavar="FOLDER",
        help="Folder to write to (default: the run folder, if there is only one run).",
    )
    parser.add_argument(
        "--title", default="", metavar="TEXT", help="Subject of the page, below its headline."
    )
    given = parser.parse_args(args)
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
