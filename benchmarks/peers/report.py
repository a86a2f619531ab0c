"""Tables and checks of the results."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from benchmarks.harness import ratio, summary
from benchmarks.peers.process import ARMS, Result

# Target speed relative to a peer, by whether the vocabulary is large.
LARGE_VOCABULARY, TARGETS = 32_000, {True: 1.2, False: 1.0}
# Nats per token, between any two arms.
LOSS_TOLERANCES = {"first_loss": 1e-4, "last_loss": 1e-3}


def table(vocabulary: int, tokens: int, results: Mapping[str, Result]) -> list[dict[str, Any]]:
    """Return one row per arm; ``ours_speedup`` is our speed relative to the arm.

    Args:
        vocabulary: Vocabulary size.
        tokens: Tokens per turn.
        results: Results by arm.
    """
    rows = []
    for name, result in results.items():
        step = summary(result.seconds)
        speed = summary([tokens / seconds for seconds in result.turns])
        row: dict[str, Any] = {
            "vocabulary": vocabulary,
            "arm": name,
            "tokens_per_s": speed["median"],
            "tokens_per_s_iqr": speed["iqr"],
            "step_ms": 1e3 * step["median"],
            "step_iqr_ms": 1e3 * step["iqr"],
            "peak_mib": result.peak / 2**20,
            "first_loss": result.losses[0],
            "last_loss": result.losses[-1],
            "losses": result.losses,
        }
        for ours in [each for each in results if ARMS[each].is_ours and not ARMS[name].is_ours]:
            speedup = ratio(result.turns, results[ours].turns)
            row[f"{ours}_speedup"], row[f"{ours}_speedup_iqr"] = speedup["median"], speedup["iqr"]
        rows.append(row)
    return rows


def verdicts(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """Describe our result against each peer.

    >>> verdicts([
    ...     {"vocabulary": 4096, "arm": "ours", "peak_mib": 600.0},
    ...     {"vocabulary": 4096, "arm": "hf_trainer", "peak_mib": 500.0, "ours_speedup": 0.9},
    ... ])
    ['vocabulary 4096: ours is 0.90x as fast as hf_trainer: WORSE (target 1.0x)', \
'vocabulary 4096: ours takes 1.20x the memory of hf_trainer: WORSE']
    """
    peak = {(row["vocabulary"], row["arm"]): row["peak_mib"] for row in rows}
    lines = []
    for row in rows:
        vocabulary, arm = row["vocabulary"], row["arm"]
        target = TARGETS[vocabulary >= LARGE_VOCABULARY]
        for ours in [name for name in ARMS if f"{name}_speedup" in row]:
            speedup, memory = row[f"{ours}_speedup"], peak[vocabulary, ours] / row["peak_mib"]
            start = f"vocabulary {vocabulary}: {ours}"
            reached = "reached" if speedup >= target else "missed" if speedup >= 1 else "WORSE"
            lost = ": WORSE" if memory > 1 else ""
            lines += [
                f"{start} is {speedup:.2f}x as fast as {arm}: {reached} (target {target}x)",
                f"{start} takes {memory:.2f}x the memory of {arm}{lost}",
            ]
    return lines


def check_losses(rows: Sequence[Mapping[str, Any]]) -> None:
    """Check that all arms train the same model.

    EntroDrop is excluded, because it changes the training. The tolerance is larger for the last
    turn, because training amplifies differences due to rounding.

    Raises:
        RuntimeError: If the losses of the first or the last turn differ.
    """
    plain = [row for row in rows if row["arm"] != "ours_entrodrop"]
    for vocabulary in {row["vocabulary"] for row in plain}:
        for which, tolerance in LOSS_TOLERANCES.items():
            losses = {row["arm"]: row[which] for row in plain if row["vocabulary"] == vocabulary}
            spread = np.ptp(list(losses.values()))
            print(f"vocabulary {vocabulary}: {which} agrees to {spread:.1e}")
            # Also true for NaN.
            if not spread <= tolerance:
                raise RuntimeError(
                    f"{which}: expected equal losses of all arms at vocabulary {vocabulary}, "
                    f"got {losses}: the trainings differ"
                )
