import numpy as np
import pytest

from lit_entrodrop.evaluation.diagnosis.loss_curve import (
    CORRELATION,
    MOST_EVALUATIONS,
    chance_of_rise,
    judge_curve,
    scatter_of,
)

EPOCHS = np.arange(1, 13)


def falling(rise: float, scatter: float = 0.0, seed: int = 0) -> np.ndarray:
    """A loss that falls, and from epoch 4 on rises by so much per epoch."""
    noise = scatter * np.random.default_rng(seed).normal(size=len(EPOCHS))
    return 2 + 1.5 * np.exp(-EPOCHS / 1.0) + rise * np.maximum(EPOCHS - 4, 0) + noise


def test_a_rise_beyond_the_scatter_overfits_from_the_evaluation_after_the_best() -> None:
    verdict = judge_curve(falling(0.05, 0.01))
    assert verdict.kind == "overfits"
    assert verdict.p_value is not None
    assert verdict.p_value < 0.01
    assert verdict.best in (3, 4)
    assert verdict.onset == verdict.best + 1
    assert verdict.rise == pytest.approx(0.4, abs=0.03)


def test_scatter_and_tiny_rises_are_no_overfitting() -> None:
    assert judge_curve(falling(0.0, 0.05)).kind == "holds"
    assert judge_curve(falling(0.001)).kind == "holds"
    assert judge_curve(falling(0.0)).rise == 0


def test_few_evaluations_give_no_verdict_but_their_rise() -> None:
    assert judge_curve([2.0]).kind == "unknown"
    three, four = judge_curve([2.0, 1.8, 2.2]), judge_curve([1.9, 1.7, 1.8, 1.95])
    assert (three.kind, three.p_value, three.onset) == ("rises", None, 2)
    assert four.kind == "rises"
    assert four.p_value is not None
    assert four.p_value > 0.1


def test_training_that_gets_worse_too_diverges() -> None:
    curve = falling(0.05)
    assert judge_curve(curve, curve - 0.1).kind == "diverges"
    assert judge_curve(curve, 3 - 0.1 * EPOCHS).kind == "overfits"
    assert judge_curve(curve, 3 - 0.1 * EPOCHS).training_change == pytest.approx(-0.8)
    assert judge_curve(curve, np.full(len(EPOCHS), np.nan)).training_change is None


@pytest.mark.parametrize("count", [5, 60])
def test_flat_curves_raise_an_alarm_as_rarely_as_the_level_says(count: int) -> None:
    noise = np.random.default_rng(1).normal(size=(500, count))
    for place in range(1, count):
        noise[:, place] *= (1 - CORRELATION**2) ** 0.5
        noise[:, place] += CORRELATION * noise[:, place - 1]
    chances = [chance_of_rise(2 + each) or 1.0 for each in noise]
    share = np.mean(np.array(chances) < 0.05)
    # Neighbors are averaged in long curves, which leaves less correlation than the test allows for.
    assert (0.025 if count <= MOST_EVALUATIONS else 0.01) < share < 0.08


def test_scatter_is_that_around_a_smooth_curve() -> None:
    assert scatter_of(2 + 0.1 * EPOCHS**2) == pytest.approx(0, abs=1e-12)
    noise = np.random.default_rng(2).normal(size=2000)
    assert scatter_of(np.linspace(3, 1, 2000) + 0.1 * noise) == pytest.approx(0.1, rel=0.1)
