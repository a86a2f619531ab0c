import math
from contextlib import nullcontext

import pytest

from benchmarks.peers.process import Result
from benchmarks.peers.report import check_losses, table, verdicts


def test_a_loss_is_called_by_its_name() -> None:
    fast = {"vocabulary": 49152, "arm": "ours", "peak_mib": 100.0, "first_loss": 9.0}
    slow = {"vocabulary": 49152, "arm": "trl_sft", "peak_mib": 200.0, "first_loss": 9.0}
    said = {
        speedup: verdicts([fast, {**slow, "ours_speedup": speedup}])[0]
        for speedup in (0.99, 1.1, 1.3)
    }
    assert [line.split(": ")[2].split(" (")[0] for line in said.values()] == [
        "WORSE",
        "missed",
        "reached",
    ]


@pytest.mark.parametrize(
    ("first", "last", "refused"),
    [
        (4.0, 3.0005, None),
        (4.0, 3.1, "last_loss"),
        (4.0005, 3.0, "first_loss"),
        (4.0, math.nan, "last_loss"),
    ],
)
def test_trainings_that_differ_are_refused(first, last, refused) -> None:
    losses = {"ours": (4.0, 3.0), "hf_trainer": (first, last), "ours_entrodrop": (9.0, 9.9)}
    rows = [
        {"vocabulary": 64, "arm": arm, "first_loss": one, "last_loss": other}
        for arm, (one, other) in losses.items()
    ]
    expected = pytest.raises(RuntimeError, match=refused) if refused else nullcontext()
    with expected:
        check_losses(rows)


def test_the_ratio_is_taken_round_by_round() -> None:
    seconds = {"ours": [1.0, 10.0, 2.0], "hf_trainer": [2.0, 20.0, 4.0]}
    results = {arm: Result(turns, turns, 2**20, [2.0, 1.0], {}) for arm, turns in seconds.items()}
    rows = table(64, 100, results)
    assert rows[1]["ours_speedup"] == 2.0
    assert rows[1]["ours_speedup_iqr"] == 0.0
    assert "ours_speedup" not in rows[0]
    assert rows[0]["tokens_per_s"] == 50.0
    assert rows[0]["tokens_per_s_iqr"] == 45.0
    assert rows[0]["losses"] == [2.0, 1.0]
