import math

import numpy as np
import pytest
import torch
from torch import Tensor

from regularizers import Regularizers, TokenLoss
from regularizers.testing import ToyLM, make_step
from regularizers.testing.toy import first_forward, logits_of, provide
from regularizers.wave_bound import WaveBound, wave_bound
from tests.helpers.float64 import losses

STEP = make_step(4, 30)


def token_loss(regularizer: WaveBound) -> tuple[TokenLoss, Tensor]:
    """Return loss and weight of each token, and the plain loss."""
    model, regularizers = ToyLM(), Regularizers([regularizer])
    step = provide(model, regularizers, STEP)
    outputs = first_forward(model, regularizers, step)
    return regularizers.on_token_loss(outputs, step), outputs.nll


@pytest.mark.parametrize("strength", [0.3, 1.0])
@pytest.mark.parametrize("epsilon", [0.0, 0.5])
def test_agrees_with_the_paper_in_float64(strength: float, epsilon: float) -> None:
    student = losses(logits_of(ToyLM(), STEP.input_ids, STEP.document_ids), STEP)
    # The teacher of the toy loop is a model with other weights.
    teacher = losses(logits_of(ToyLM(seed=2), STEP.input_ids, STEP.document_ids), STEP)
    actual, _ = token_loss(WaveBound(strength, epsilon))
    below = 0
    for place, loss in student.items():
        bound = teacher[place] - epsilon
        # |R − b| + b: one branch applies.
        bounded = loss if loss >= bound else 2 * bound - loss
        below += loss < bound
        expected = (1 - strength) * loss + strength * bounded
        assert actual.loss[place].item() == pytest.approx(expected, rel=1e-5)
    assert 10 < below < len(student) - 10
    assert torch.equal(actual.weight, STEP.valid.float())


def test_gradient_is_reversed_below_the_bound_alone() -> None:
    loss = torch.tensor([1.0, 3.0], requires_grad=True)
    wave_bound(loss, torch.tensor([2.0, 2.0]), 0.1).sum().backward()
    assert loss.grad is not None
    assert loss.grad.tolist() == [-1.0, 1.0]


def test_gradcheck() -> None:
    generator = torch.Generator().manual_seed(0)
    loss, teacher = torch.rand(2, 3, 5, generator=generator, dtype=torch.float64)
    loss.requires_grad_()
    assert (loss - teacher + 0.1).abs().min() > 1e-3
    assert torch.autograd.gradcheck(lambda given: wave_bound(given, teacher, 0.1), loss)


def test_a_bound_that_is_never_reached_is_plain_training() -> None:
    bounded, plain = token_loss(WaveBound(1.0, epsilon=100.0))
    torch.testing.assert_close(bounded.loss, plain, atol=1e-4, rtol=0)


def test_share_below_the_bound_is_logged() -> None:
    regularizers, model = Regularizers([WaveBound()]), ToyLM()
    step = provide(model, regularizers, STEP)
    regularizers.on_token_loss(first_forward(model, regularizers, step), step)
    ours, teacher = (
        np.asarray(list(losses(logits_of(each, STEP.input_ids, STEP.document_ids), STEP).values()))
        for each in (ToyLM(), ToyLM(seed=2))
    )
    share = step.metrics["wave_bound/below_bound"].item()
    assert share == pytest.approx(float((ours < teacher - 0.01).mean()))


@pytest.mark.parametrize("decay", [1.0, -0.1, math.nan])
def test_bad_decay_is_refused(decay: float) -> None:
    with pytest.raises(ValueError, match=r"WaveBound decay: expected a number in \[0, 1\)"):
        WaveBound(decay=decay)
