"""Position of each row of a log in training: its step, and the passes over the data."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import pandas as pd

STEPS = ("step", "global_step", "trainer/global_step", "train/global_step", "_step", "iteration")
EPOCHS = ("epoch", "train/epoch", "epochs")


def positions(
    table: "pd.DataFrame", counts_epochs: bool, steps_per_epoch: float | None = None
) -> tuple["pd.DataFrame", list[str]]:
    """Return step and passes over the data of each row, and sentences on what was unusual.

    Transformers logs the number of passes as the epoch. Lightning logs the current epoch, counted
    from 0; the row at its end comes after one pass more.

    Args:
        table: Rows in the order of the log.
        counts_epochs: Whether a whole number is that of the current epoch, not one of passes.
        steps_per_epoch: Steps of an epoch, where the log has no epochs.

    Returns:
        A table with the columns ``step`` and ``epoch``, the latter NaN where unknown.

    >>> import pandas as pd
    >>> table = pd.DataFrame({"step": [5, 10, 15, 20], "epoch": [0, 0, 1, 1]})
    >>> positions(table, counts_epochs=True)[0]["epoch"].tolist()
    [0.5, 1.0, 1.5, 2.0]
    """
    import pandas as pd

    notes: list[str] = []
    steps, epochs = _numbers(table, STEPS), _numbers(table, EPOCHS)
    if steps.isna().all():
        steps = pd.Series(np.arange(1.0, len(table) + 1), table.index)
        notes.append("The log has no steps, so they are counted in the order of its rows.")
    if steps_per_epoch:
        return pd.DataFrame({"step": steps, "epoch": steps / steps_per_epoch}), notes
    known = pd.DataFrame({"step": steps, "epoch": epochs}).dropna()
    if known.empty:
        notes.append(
            "The log has no epochs: pass --steps_per_epoch to place the results by epoch and to "
            "look for stair steps."
        )
    elif counts_epochs and _counts(known):
        known, steps = _passes_at_ends(known, steps, notes)
    known = known.sort_values(["step", "epoch"])
    at = np.interp(steps, known["step"], known["epoch"]) if len(known) else np.nan
    return pd.DataFrame({"step": steps, "epoch": at}), notes


def _numbers(table: "pd.DataFrame", names: Sequence[str]) -> "pd.Series":
    import pandas as pd

    columns = {str(column).lower(): column for column in table.columns}
    found = next((columns[name] for name in names if name in columns), None)
    if found is None:
        return pd.Series(np.nan, table.index)
    return pd.to_numeric(table[found], errors="coerce").replace([np.inf, -np.inf], np.nan)


def _counts(known: "pd.DataFrame") -> bool:
    """Return whether epochs are numbers of the current epoch."""
    epochs = known["epoch"]
    repeated = (known.groupby("epoch")["step"].nunique() > 1).any()
    return bool((epochs % 1 == 0).all() and (epochs.min() == 0 or repeated))


def _passes_at_ends(
    known: "pd.DataFrame", steps: "pd.Series", notes: list[str]
) -> tuple["pd.DataFrame", "pd.Series"]:
    """Return the steps at which whole numbers of passes end, and the steps of all rows."""
    import pandas as pd

    if _restarts(known):
        notes.append("Steps restart in each epoch, so they are counted in the order of the rows.")
        steps = pd.Series(np.arange(1.0, len(steps) + 1), steps.index)
        known = known.assign(step=steps)
    ends = known.groupby("epoch")["step"].max()
    start = 0.0 if ends.index[0] == 0 else float(known["step"].min())
    lengths = np.diff(ends, prepend=start)
    if len(ends) > 1:
        # The last epoch may be incomplete.
        ends.iloc[-1] = max(ends.iloc[-1], ends.iloc[-2] + np.median(lengths[:-1]))
    passes = {"step": [start, *ends], "epoch": [ends.index[0], *(ends.index + 1)]}
    return pd.DataFrame(passes), steps


def _restarts(known: "pd.DataFrame") -> bool:
    ends = known.groupby("epoch")["step"].max()
    return len(ends) > 1 and bool((ends.diff().iloc[1:] <= 0).any())
