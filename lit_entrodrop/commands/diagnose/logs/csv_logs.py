"""Logs in CSV: ``metrics.csv`` of Lightning's CSVLogger and of our own runs, and similar tables."""

from pathlib import Path

from lit_entrodrop.commands.diagnose.logs.log import LIGHTNING, TrainingLog

METRICS = "metrics.csv"
# Only our own runs have one of these.
OWN = ("run.json", "evaluations")


def read_csv(path: Path, name: str) -> TrainingLog:
    """Read a table with a header.

    Raises:
        ValueError: If the file has no rows, or is not a table.
    """
    import pandas as pd

    try:
        table = pd.read_csv(path, keep_default_na=False, na_values=[""])
    except ValueError as error:  # of pandas: parsing, empty data, encoding
        raise _unreadable(path, f"a file that cannot be read ({error})") from error
    if table.empty:
        raise _unreadable(path, "no rows: the trainer has logged nothing yet")
    notes = []
    if any((path.parent / each).exists() for each in OWN):
        notes.append(
            "This is a run of lit-entrodrop with losses of each document. "
            f"`lit-entrodrop report --runs {path.parent}` knows more: intervals, and which tokens "
            "overfit."
        )
    return TrainingLog(name, path.parent, LIGHTNING, table, notes)


def _unreadable(path: Path, found: str) -> ValueError:
    return ValueError(
        f"{path}: expected a table with a header, as Lightning's CSVLogger writes it, got {found}"
    )
