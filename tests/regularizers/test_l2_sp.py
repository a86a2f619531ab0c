import numpy as np
import pytest
import torch

from regularizers import L2SP, Linear, ParameterPart, Regularizers


@pytest.mark.parametrize("progress", [0.25, 1.0])
def test_gradient_is_that_of_the_formula_in_double_precision(progress: float) -> None:
    generator = torch.Generator().manual_seed(0)
    values, initial = torch.randn(2, 50, dtype=torch.float64, generator=generator)
    part = ParameterPart("w", values.clone().requires_grad_(), initial)
    [(name, _, penalty)] = Regularizers([L2SP(Linear(end=0.4))]).on_parameter(part, progress)
    [slope] = torch.autograd.grad(penalty, part.values)
    distance, strength = values.numpy() - initial.numpy(), 0.4 * progress
    assert name == "l2_sp/penalty"
    np.testing.assert_allclose(penalty.item(), strength / 2 * np.dot(distance, distance))
    np.testing.assert_allclose(slope.numpy(), strength * distance)


def test_parts_add_up_to_the_whole() -> None:
    values, initial = torch.randn(2, 40, dtype=torch.float64)
    penalize = L2SP(0.3).on_parameter
    whole = penalize(ParameterPart("w", values, initial), 0.0)
    halves = [penalize(ParameterPart("w", values[i::2], initial[i::2]), 0.0) for i in (0, 1)]
    assert sum(halves).item() == pytest.approx(whole.item())


def test_there_is_no_penalty_in_eval_mode_or_at_strength_zero() -> None:
    part = ParameterPart("w", torch.ones(2), torch.zeros(2))
    assert not list(Regularizers([L2SP(0.3)]).eval().on_parameter(part, 0.5))
    assert not list(Regularizers([L2SP(0.0)]).on_parameter(part, 0.5))
