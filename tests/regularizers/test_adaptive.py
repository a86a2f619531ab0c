import math
from typing import Any

import numpy as np
import pytest

from regularizers.adaptive import Adaptive
from regularizers.curricula import require_probability

GAP = "gap/loss_low_entropy"


def strengths(curriculum: Adaptive, gaps: list[float]) -> list[float]:
    told = []
    for gap in gaps:
        curriculum.on_evaluation({"val/loss": 3.0, GAP: gap})
        told.append(curriculum(0.5))
    return told


def test_rises_above_the_target_and_falls_below() -> None:
    gaps = np.random.default_rng(0).normal(0.2, 0.1, 50).tolist()
    level, expected = 0.1, []
    for sign in np.sign(np.asarray(gaps) - 0.2):
        level = float(np.clip(level + 0.15 * sign, 0.1, 0.6))
        expected.append(level)
    assert {0.1, 0.6} <= set(expected)
    curriculum = Adaptive(max=0.6, min=0.1, step=0.15, target=0.2)
    assert curriculum(0.5) == 0.1
    assert strengths(curriculum, gaps) == pytest.approx(expected)


def test_stays_where_the_metric_is_the_target_or_unknown() -> None:
    assert strengths(Adaptive(step=0.5), [1.0, 0.1, math.nan, 1.0]) == [0.5, 0.5, 0.5, 0.5]


def test_warmup_is_zero_whatever_evaluations_tell() -> None:
    curriculum = Adaptive(min=0.2, warmup=0.3)
    assert strengths(curriculum, [1.0]) == [pytest.approx(0.3)]
    assert (curriculum(0.29), curriculum.at_most(0.29)) == (0.0, 0.0)
    assert curriculum.at_most(0.3) == 0.5


def test_a_probability_is_required_of_the_most_it_can_reach() -> None:
    require_probability("drop rate", Adaptive(max=1.0))
    with pytest.raises(ValueError, match=r"drop rate: expected a probability .*, got 1\.5 at 20 %"):
        require_probability("drop rate", Adaptive(max=1.5, warmup=0.2))


def test_a_metric_that_is_not_logged_is_refused() -> None:
    with pytest.raises(ValueError, match=r"'gap/los': use one of gap/loss, val/loss"):
        Adaptive(metric="gap/los").on_evaluation({"val/loss": 3.0, "gap/loss": 0.1})


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({"min": 0.6}, "min=0.6, max=0.5"),
        ({"min": -0.1}, "min"),
        ({"max": math.inf}, "max"),
        ({"max": math.nan}, "max"),
        ({"step": 0.0}, "Adaptive step"),
        ({"step": math.nan}, "Adaptive step"),
        ({"target": math.nan}, "Adaptive target"),
        ({"warmup": 1.0}, "warmup"),
    ],
)
def test_bad_settings_are_refused_by_name(settings: dict[str, Any], named: str) -> None:
    with pytest.raises(ValueError, match=named):
        Adaptive(**settings)
