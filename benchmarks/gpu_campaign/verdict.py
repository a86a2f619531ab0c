"""Differences between the arms of a campaign, on held-out documents, from its file of results.

``python -m benchmarks.gpu_campaign.verdict --rows FILE`` works on any machine, later.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.gpu_campaign.cases import Row, Skipped
from benchmarks.gpu_campaign.rows import read_rows, shown
from benchmarks.harness import command_line
from lit_entrodrop.evaluation.statistics import (
    holm,
    loss_difference,
    paired_over_documents,
    paired_over_seeds,
    verdict,
)

BASELINE = "plain"
Run = dict[str, Any]


def judge_rows(rows: Path, contrasts: Sequence[tuple[str, str]] = ()) -> Iterator[Row]:
    """Yield the difference of each arm from plain, at the best and at the last epoch.

    With one common seed, intervals are over documents, and with more, over seeds. P values are
    corrected for all pairs of a moment (Holm).

    Args:
        rows: File of the campaign's results.
        contrasts: Further pairs of arms.
    """
    runs: dict[tuple[str, int], Run] = {}
    for written in read_rows(rows):
        if written["status"] == "ok" and written.get("documents"):
            runs[written["arm"], written["seed"]] = written
    arms = dict.fromkeys(arm for arm, _ in runs)
    pairs = [(arm, BASELINE) for arm in arms if arm != BASELINE and BASELINE in arms]
    pairs += [pair for pair in contrasts if set(pair) <= arms.keys()]
    if not pairs:
        raise Skipped(f"needs finished runs of {BASELINE} and of another arm")
    for moment in ("best", "last"):
        found = [row for pair in pairs if (row := _difference(*pair, moment, runs)) is not None]
        tested = [row for row in found if row["p_value"] is not None]
        for row, corrected in zip(tested, holm([row["p_value"] for row in tested]), strict=True):
            row["p_corrected"] = corrected
        for row in found:
            yield {**row, "verdict": verdict(row["difference"], row.get("p_corrected"))}


def _difference(
    first: str, second: str, moment: str, runs: dict[tuple[str, int], Run]
) -> Row | None:
    seeds = [seed for arm, seed in runs if arm == first and (second, seed) in runs]
    if not seeds:
        return None
    losses = [
        [np.asarray(runs[arm, seed]["documents"][moment]) for seed in seeds]
        for arm in (first, second)
    ]
    tokens = np.asarray(runs[first, seeds[0]]["documents"]["tokens"])
    if len(seeds) == 1:
        estimate = paired_over_documents(losses[0][0], losses[1][0], tokens)
    else:
        means = [[loss.sum() / tokens.sum() for loss in each] for each in losses]
        estimate = paired_over_seeds(*means)
    return {
        "arm": first,
        "against": second,
        "moment": moment,
        "seeds": seeds,
        **vars(estimate),
        "of_each_seed": [
            float(loss_difference(one, other, tokens)) for one, other in zip(*losses, strict=True)
        ],
    }


def print_verdict(rows: str, contrasts: list[list[str]] = [["entrodrop", "chance"]]) -> None:  # noqa: B006
    """Print the differences between the arms of a campaign.

    Args:
        rows: Path to the file of the campaign's results.
        contrasts: Further pairs of arms.
    """
    pairs = [(first, second) for first, second in contrasts]
    for row in judge_rows(Path(rows), pairs):
        print(shown(row))


if __name__ == "__main__":
    command_line(print_verdict)
