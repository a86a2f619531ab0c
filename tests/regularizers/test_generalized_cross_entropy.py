import numpy as np
import pytest
import torch
from torch.nn.functional import cross_entropy, kl_div

from regularizers import ReferenceKL, Regularizers
from regularizers.generalized_cross_entropy import GeneralizedCrossEntropy, saturated_loss
from regularizers.testing import ToyLM, make_step, training_loss
from regularizers.testing.toy import first_forward, logits_of, provide
from tests.helpers.float64 import losses, mean
from tests.helpers.llama import make_llama


@pytest.mark.parametrize("q", [0.1, 0.7, 1.0])
def test_loss_is_the_published_formula(q: float) -> None:
    model, step = make_llama(), make_step()
    nll = losses(logits_of(model, step.input_ids, step.document_ids), step)
    expected = [(1 - np.exp(-loss) ** q) / q for loss in nll.values()]
    actual = float(training_loss(GeneralizedCrossEntropy(q), model, step).detach())
    assert actual == pytest.approx(mean(expected), abs=1e-5)


def test_exponent_near_zero_is_cross_entropy() -> None:
    loss = torch.tensor([0.0, 1e-6, 0.3, 20.0], dtype=torch.float64)
    assert saturated_loss(loss, 0.0) is loss
    torch.testing.assert_close(saturated_loss(loss, 1e-9), loss, rtol=1e-7, atol=0)


def test_gradient_is_that_of_cross_entropy_times_a_power_of_the_probability() -> None:
    loss = torch.tensor([0.0, 0.1, 5.0, 200.0], dtype=torch.float64, requires_grad=True)
    [gradient] = torch.autograd.grad(saturated_loss(loss, 0.7).sum(), loss)
    slope = np.exp(-loss.detach().numpy()) ** 0.7
    np.testing.assert_allclose(gradient, slope, atol=1e-16)
    assert torch.autograd.gradcheck(
        lambda each: saturated_loss(each, 0.7), (loss[:3].detach().requires_grad_(),)
    )


def test_loss_is_bounded_by_the_inverse_of_the_exponent() -> None:
    assert saturated_loss(torch.tensor([1e4, 3e38]), 0.5).tolist() == [2.0, 2.0]


def test_with_exponent_1_it_is_dft_and_with_the_reference_asft() -> None:
    model, base, step = ToyLM(), ToyLM(seed=1), make_step()
    both = Regularizers([GeneralizedCrossEntropy(1.0), ReferenceKL(0.05)])
    step = provide(model, both, step, base)
    loss = both.mean_loss(first_forward(model, both, step), step)

    # arXiv 2508.05629 and 2509.23753.
    logits, frozen = model(step.input_ids), base(step.input_ids).detach()
    nll = cross_entropy(logits[:, :-1].transpose(1, 2), step.labels[:, 1:], reduction="none")
    dft = nll.neg().exp().detach() * nll
    anchor = kl_div(logits.log_softmax(-1), frozen.softmax(-1), reduction="none").sum(-1)
    asft = (dft + 0.05 * anchor[:, :-1])[step.valid[:, 1:]].mean()
    parameters = list(model.parameters())
    for ours, theirs in zip(
        torch.autograd.grad(loss, parameters), torch.autograd.grad(asft, parameters), strict=True
    ):
        torch.testing.assert_close(ours, theirs, atol=1e-6, rtol=1e-4)
