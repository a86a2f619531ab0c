"""Losses of a run while it trains, by the share of its schedule that it has done."""

from math import ceil
from pathlib import Path

from lit_entrodrop.commands.compare.measuring.measures import evaluated_rows
from lit_entrodrop.runs.criterion import read_criterion
from lit_entrodrop.runs.evaluations import read_run_info
from lit_entrodrop.runs.metrics_file import read_metrics

TENTHS = 10


def losses_by_tenth(folder: Path) -> list[tuple[int, float]]:
    """Return the loss of the latest evaluation at each tenth of the run that has one.

    It is what selects the best checkpoint, by default the validation loss in nats per token; lower
    is better. Before the first evaluation, the list is empty.
    """
    try:
        metrics = read_metrics(folder)
        rows, criterion = evaluated_rows(metrics, folder), read_criterion(folder)
        total = int(read_run_info(folder)["total_steps"])
    except (ValueError, OSError, LookupError, TypeError):
        return []
    scores = rows.reindex(columns=criterion.metrics).map(criterion.score).min(axis="columns")
    return at_tenths([(int(step), float(score)) for step, score in scores.dropna().items()], total)


def at_tenths(scores: list[tuple[int, float]], total: int) -> list[tuple[int, float]]:
    """Return the last of some scores, by step, at each tenth of the total steps.

    A score counts from the tenth in which its step is.

    >>> at_tenths([(20, 3.0), (40, 2.0)], total=100)
    [(2, 3.0), (3, 3.0), (4, 2.0)]
    >>> at_tenths([(25, 3.0)], total=100)
    [(3, 3.0)]
    """
    if not scores or total <= 0:
        return []
    last = min(TENTHS, ceil(TENTHS * scores[-1][0] / total))
    known = {
        tenth: [score for step, score in scores if step * TENTHS <= tenth * total]
        for tenth in range(1, last + 1)
    }
    return [(tenth, each[-1]) for tenth, each in known.items() if each]
