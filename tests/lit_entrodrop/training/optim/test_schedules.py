import math

import numpy as np
import pytest

from lit_entrodrop.training.optim import (
    LRSchedule,
)


def curve(schedule: LRSchedule, total: int) -> np.ndarray:
    return np.array([schedule.factor(step, total) for step in range(total + 1)])


@pytest.mark.parametrize("warmup", [10, 0.1])
def test_warmup_rises_linearly_to_the_peak(warmup: float) -> None:
    rates = curve(LRSchedule(warmup=warmup), 100)
    np.testing.assert_allclose(rates[:10], np.arange(1, 11) / 10)
    assert rates[10] == 1
    assert (np.diff(rates[10:]) <= 0).all()


@pytest.mark.parametrize(
    ("decay", "halfway"), [("cosine", 0.55), ("linear", 0.55), ("constant", 1.0)]
)
def test_decay_ends_at_the_final_share(decay: str, halfway: float) -> None:
    rates = curve(LRSchedule(0, decay, final=0.1), 100)  # type: ignore[arg-type]
    assert rates[0] == 1
    assert rates[50] == pytest.approx(halfway)
    assert rates[100] == pytest.approx(1 if decay == "constant" else 0.1)


def test_cosine_quarter() -> None:
    assert LRSchedule(0).factor(25, 100) == pytest.approx((1 + math.sqrt(0.5)) / 2)


@pytest.mark.parametrize("total", [1, 2, 3])
def test_shortest_runs(total: int) -> None:
    for schedule in (LRSchedule(), LRSchedule(warmup=10), LRSchedule(warmup=0)):
        assert (curve(schedule, total)[:total] > 0).all()
        assert (curve(schedule, total) <= 1).all()


def test_steps_beyond_the_end_stay_at_the_final_rate() -> None:
    assert LRSchedule(final=0.2).factor(500, 100) == pytest.approx(0.2)


@pytest.mark.parametrize(
    "settings",
    [{"warmup": -1}, {"warmup": math.inf}, {"warmup": math.nan}, {"final": 1.5}, {"final": -0.1}],
)
def test_settings_out_of_range_are_refused(settings: dict[str, float]) -> None:
    with pytest.raises(
        ValueError, match=r"lr_schedule: expected warmup >= 0 and final in \[0, 1\]"
    ):
        LRSchedule(**settings)  # type: ignore[arg-type]
