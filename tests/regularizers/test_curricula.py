import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from scipy.special import expit
from torch import nn

from regularizers import Constant, Cosine, Curriculum, EntroDrop, Linear, Sigmoid, Step
from regularizers.curricula import as_curriculum, require_probability

GRID = [index / 200 for index in range(201)]
RAMPS: list[Callable[..., Curriculum]] = [
    lambda **shares: Linear(end=0.7, start=0.1, **shares),
    lambda **shares: Cosine(end=0.7, start=0.1, **shares),
    lambda **shares: Step(values=[0.1, 0.4, 0.7], milestones=[0.25, 0.5], **shares),
    lambda **shares: Sigmoid(max=0.7, **shares),
    lambda **shares: Sigmoid(max=0.7, rescale=True, **shares),
]


@pytest.mark.parametrize("progress", GRID[::20])
def test_closed_forms(progress: float) -> None:
    near = pytest.approx
    assert Constant(0.3)(progress) == 0.3
    assert Linear(end=0.2, start=0.8)(progress) == near(0.8 - 0.6 * progress)
    assert Cosine(end=1.0)(progress) == near(math.sin(math.pi * progress / 2) ** 2)
    sigmoid = 0.9 * float(expit(7 * (progress - 0.3)))
    assert Sigmoid(max=0.9, midpoint=0.3, steepness=7)(progress) == near(sigmoid, rel=1e-12)
    low, high = float(expit(-2.1)), float(expit(4.9))
    rescaled = (sigmoid - 0.9 * low) / (high - low)
    curriculum = Sigmoid(max=0.9, midpoint=0.3, steepness=7, rescale=True)
    assert curriculum(progress) == near(rescaled, rel=1e-12)


def test_step_changes_at_its_milestones() -> None:
    curriculum = Step(values=[0.0, 0.2, 0.4], milestones=[0.3, 0.6])
    assert [curriculum(p) for p in (0, 0.2999, 0.3, 0.5999, 0.6, 1)] == [0, 0, 0.2, 0.2, 0.4, 0.4]


@pytest.mark.parametrize("make", RAMPS)
def test_ramps_up_monotonously(make: Callable[..., Curriculum]) -> None:
    strengths = [make()(progress) for progress in GRID]
    assert strengths == sorted(strengths)
    assert strengths[0] < strengths[-1] <= 0.7


@pytest.mark.parametrize("make", RAMPS)
def test_warmup_is_zero_and_hold_keeps_the_end(make: Callable[..., Curriculum]) -> None:
    plain, shifted = make(), make(warmup=0.2, hold=0.3)
    for progress in GRID:
        if progress < 0.2:
            assert shifted(progress) == 0.0
        elif progress >= 0.7 + 1e-9:
            assert shifted(progress) == plain(1.0)
        elif progress not in (0.325, 0.45):  # milestones of Step, subject to rounding
            expected = plain(min((progress - 0.2) / 0.5, 1.0))
            assert shifted(progress) == pytest.approx(expected, abs=1e-12)


def test_constant_warms_up() -> None:
    assert [Constant(0.3, warmup=0.1)(p) for p in (0.0, 0.0999, 0.1, 1.0)] == [0, 0, 0.3, 0.3]


@pytest.mark.parametrize("midpoint", [0.0, 0.2, 0.5, 1.0])
@pytest.mark.parametrize("steepness", [1e-18, 1e-3, 10.0, 1e4, 1e300])
def test_rescaled_sigmoid_hits_both_ends_exactly(midpoint: float, steepness: float) -> None:
    for maximum in (percent / 100 for percent in range(101)):
        curriculum = Sigmoid(maximum, midpoint, steepness, rescale=True)
        assert (curriculum(0.0), curriculum(1.0)) == (0.0, maximum)


def test_gentle_rescaled_sigmoid_is_a_line() -> None:
    curriculum = Sigmoid(max=0.6, steepness=1e-18, rescale=True)
    assert [curriculum(p) for p in GRID] == pytest.approx([0.6 * p for p in GRID])


@pytest.mark.parametrize("rescale", [False, True])
def test_extremely_steep_sigmoid_is_a_step(rescale: bool) -> None:
    curriculum = Sigmoid(max=0.8, midpoint=0.5, steepness=1e308, rescale=rescale)
    assert [curriculum(p) for p in (0.0, 0.49, 0.5, 0.51, 1.0)] == [0.0, 0.0, 0.4, 0.8, 0.8]


def test_progress_beyond_the_end_keeps_the_end() -> None:
    assert Linear(end=0.5)(1.2) == 0.5


BAD_SETTINGS: list[tuple[type[Curriculum], dict[str, Any], str]] = [
    (Constant, {"value": -0.1}, "Constant value"),
    (Constant, {"value": 0.3, "warmup": 1.0}, "warmup"),
    (Linear, {"end": -1}, "Linear end"),
    (Linear, {"end": 1, "start": math.inf}, "Linear start"),
    (Linear, {"end": 1, "warmup": 0.6, "hold": 0.4}, "hold"),
    (Linear, {"end": 1, "hold": -0.1}, "hold"),
    (Cosine, {"end": math.inf}, "Cosine end"),
    (Cosine, {"end": 0.1, "start": -1}, "Cosine start"),
    (Step, {"values": [0.1], "milestones": [0.5]}, "Step values"),
    (Step, {"values": [0.1, -0.2], "milestones": [0.5]}, "Step value"),
    (Step, {"values": [0, 1, 2], "milestones": [0.6, 0.4]}, "Step milestones"),
    (Step, {"values": [0, 1, 2], "milestones": [0.4, 0.4]}, "Step milestones"),
    (Step, {"values": [0, 1], "milestones": [0.0]}, "Step milestones"),
    (Step, {"values": [0, 1], "milestones": [1.0]}, "Step milestones"),
    (Sigmoid, {"max": -0.1}, "Sigmoid max"),
    (Sigmoid, {"midpoint": 1.5}, "Sigmoid midpoint"),
    (Sigmoid, {"steepness": 0.0}, "Sigmoid steepness"),
    (Sigmoid, {"steepness": math.inf}, "Sigmoid steepness"),
]
NAN_SETTINGS: list[tuple[type[Curriculum], dict[str, Any], str]] = [
    (Constant, {"value": math.nan}, "Constant value"),
    (Constant, {"value": 0.3, "warmup": math.nan}, "warmup"),
    (Linear, {"end": math.nan}, "Linear end"),
    (Linear, {"end": 1, "start": math.nan}, "Linear start"),
    (Linear, {"end": 1, "hold": math.nan}, "hold"),
    (Cosine, {"end": math.nan}, "Cosine end"),
    (Step, {"values": [0.1, math.nan], "milestones": [0.5]}, "Step value"),
    (Step, {"values": [0, 1], "milestones": [math.nan]}, "Step milestones"),
    (Sigmoid, {"max": math.nan}, "Sigmoid max"),
    (Sigmoid, {"midpoint": math.nan}, "Sigmoid midpoint"),
    (Sigmoid, {"steepness": math.nan}, "Sigmoid steepness"),
]


@pytest.mark.parametrize(("kind", "settings", "named"), BAD_SETTINGS + NAN_SETTINGS)
def test_bad_settings_are_refused_by_name(
    kind: type[Curriculum], settings: dict[str, Any], named: str
) -> None:
    with pytest.raises(ValueError, match=named):
        kind(**settings)


def test_require_probability_names_the_first_offence() -> None:
    with pytest.raises(ValueError, match=r"drop rate.*got 1\.02 at 51 %"):
        require_probability("drop rate", Linear(end=2.0))
    require_probability("drop rate", Sigmoid(max=1.0, rescale=True))


@pytest.mark.parametrize("shares", [{}, {"warmup": 0.2, "hold": 0.3}])
def test_no_step_slips_through_however_short(shares: dict[str, float]) -> None:
    spike = Step(values=[0.0, 1.5, 0.0], milestones=[0.501, 0.502], **shares)
    assert {spike(percent / 100) for percent in range(101)} == {0.0}
    with pytest.raises(ValueError, match=r"drop rate.*got 1\.5 at \d\d\.\d+ %"):
        require_probability("drop rate", spike)
    require_probability("drop rate", Step(values=[0.0, 1.0], milestones=[0.501], **shares))


def test_numbers_become_constants_and_curricula_stay() -> None:
    curriculum = Linear(end=0.5)
    assert as_curriculum(curriculum) is curriculum
    assert as_curriculum(0)(0.3) == 0.0


class Adaptive(Curriculum, nn.Module):
    """A curriculum with state, as its base class describes it."""

    level: torch.Tensor

    def __init__(self) -> None:
        nn.Module.__init__(self)
        Curriculum.__init__(self)
        self.register_buffer("level", torch.tensor(0.2, dtype=torch.float64))

    def ramp(self, progress: float) -> float:
        return float(self.level)


def test_stateful_curriculum_is_saved_with_its_regularizer() -> None:
    trained, resumed = EntroDrop(curriculum=Adaptive()), EntroDrop(curriculum=Adaptive())
    trained.load_state_dict({"curriculum.level": torch.tensor(0.6, dtype=torch.float64)})
    resumed.load_state_dict(trained.state_dict())
    assert resumed.curriculum(0.1) == 0.6
