from dataclasses import replace

import numpy as np
import pytest
import torch

from regularizers import Focal, Outputs, Regularizers
from regularizers.focal import focal_factor
from regularizers.testing import make_step, training_loss
from regularizers.testing.toy import logits_of
from tests.helpers.float64 import log_probabilities, mean, valid_tokens
from tests.helpers.llama import make_llama


@pytest.mark.parametrize("gamma", [0.0, 0.5, 2.0, 5.0])
def test_loss_is_the_published_formula(gamma: float) -> None:
    model, step = make_llama(), make_step()
    rows = log_probabilities(logits_of(model, step.input_ids, step.document_ids))
    expected = []
    for row, place in valid_tokens(step):
        log_p = rows[row, place, int(step.labels[row, place])]
        expected.append(-float((1 - 2.718281828459045**log_p) ** gamma * log_p))
    actual = float(training_loss(Focal(gamma), model, step).detach())
    assert actual == pytest.approx(mean(expected), abs=1e-5)


def test_exponent_zero_is_cross_entropy_in_value_and_gradient() -> None:
    nll = torch.tensor([0.0, 1e-30, 0.3, 20.0], requires_grad=True)
    loss = focal_factor(nll, 0.0) * nll
    assert torch.equal(loss, nll)
    [gradient] = torch.autograd.grad(loss.sum(), nll)
    assert torch.equal(gradient, torch.ones(4))


@pytest.mark.parametrize("gamma", [0.01, 0.5, 1.0, 2.0])
def test_certain_tokens_have_neither_loss_nor_gradient(gamma: float) -> None:
    # Rounding makes the loss of a certain token −0 or a little less.
    nll = torch.tensor([0.0, -0.0, -1e-7, 1e-38], requires_grad=True)
    factor = focal_factor(nll, gamma)
    [gradient] = torch.autograd.grad((factor * nll).sum(), nll)
    assert factor.isfinite().all()
    assert gradient.isfinite().all()
    if gamma >= 0.5:
        assert gradient.abs().max() < 1e-15


def test_gradient_flows_through_the_factor_too() -> None:
    step = make_step()
    outputs = Outputs.from_logits(torch.randn(3, 24, 64), step.labels, step.document_ids)
    nll = outputs.nll.double().requires_grad_()
    loss = Regularizers([Focal(2.0)]).mean_loss(replace(outputs, nll=nll), step)
    [gradient] = torch.autograd.grad(loss, nll)
    p = np.exp(-nll.detach().numpy()[step.valid.numpy()])
    # Of −(1 − p)² ln p by −ln p, as dp = −p d(−ln p).
    slope = (1 - p) ** 2 - 2 * (1 - p) * p * np.log(p)
    actual = gradient[step.valid].numpy() * len(p)
    np.testing.assert_allclose(actual, slope, rtol=1e-9)


@pytest.mark.parametrize("gamma", [0.5, 2.0])
def test_gradcheck(gamma: float) -> None:
    nll = torch.tensor([1e-3, 0.1, 1.0, 8.0], dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda nll: focal_factor(nll, gamma) * nll, nll, eps=1e-7)
