"""The command ``report``."""

from collections import Counter
from pathlib import Path

from rich.console import Console

from lit_entrodrop.report.page import write_report


def report(runs: list[str], output: str | None = None, title: str = "") -> None:
    """Write a page that explains one or several runs: open it in any browser.

    Args:
        runs: folders that `fit` wrote.
        output: folder to write report.html and figures/ to; by default that of the run if there is
            one alone, and their common parent otherwise.
        title: of the page.
    """
    folders = [Path(run) for run in runs]
    default = folders[0] if len(folders) == 1 else folders[0].parent
    path = write_report(Path(output) if output else default, named(folders), title=title)
    Console().print(f"Report: {path}", soft_wrap=True)


def named(folders: list[Path]) -> dict[str, Path]:
    """Return folders by name: their last part, or the whole path where that is not unique.

    >>> list(named([Path("runs/a"), Path("runs/b")])), list(named([Path("x/a"), Path("y/a")]))
    (['a', 'b'], ['x/a', 'y/a'])
    """
    counts = Counter(folder.resolve().name for folder in folders)
    return {
        folder.resolve().name if counts[folder.resolve().name] == 1 else str(folder): folder
        for folder in folders
    }
