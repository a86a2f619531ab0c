"""The command ``report``."""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from lit_entrodrop.cli.parsing import OneLineErrors
from lit_entrodrop.commands.report.page import write_report

DESCRIPTION = """Write a page that explains one or several runs, report.html: a single file that
any browser opens without a network. Its figures lie beside it, in figures/."""


def main(args: Sequence[str]) -> None:
    """Run the command.

    Args:
        args: its arguments.
    """
    parser = OneLineErrors(prog="lit-entrodrop report", description=DESCRIPTION)
    parser.add_argument(
        "--runs", nargs="+", type=str, required=True, help="Folders that `fit` wrote."
    )
    parser.add_argument(
        "--output",
        type=str | None,
        help="Folder to write to; by default that of the run, if there is one run alone.",
    )
    parser.add_argument("--title", type=str, default="", help="Stands above the page.")
    given = parser.parse_args(list(args))
    folders = [Path(run) for run in given.runs]
    if given.output is None and len(folders) > 1:
        parser.error("expected --output, a folder for the page, as there are several runs")
    output = Path(given.output or folders[0])
    path = write_report(output, named(folders), title=given.title)
    Console().print(f"Report: {path}", soft_wrap=True)


def named(folders: Sequence[Path]) -> dict[str, Path]:
    """Return folders by name: their last part, or the whole path where that is not unique.

    >>> list(named([Path("runs/a"), Path("runs/b")])), list(named([Path("x/a"), Path("y/a")]))
    (['a', 'b'], ['x/a', 'y/a'])
    """
    counts = Counter(folder.resolve().name for folder in folders)
    return {
        folder.resolve().name if counts[folder.resolve().name] == 1 else str(folder): folder
        for folder in folders
    }
