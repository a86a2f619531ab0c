import numpy as np
import pytest
import torch

from regularizers import LabelSmoothing, Regularizers
from regularizers.label_smoothing import smoothed_loss
from regularizers.testing import make_step, training_loss
from regularizers.testing.toy import logits_of
from tests.helpers.float64 import log_probabilities, mean, valid_tokens
from tests.helpers.llama import make_llama


@pytest.mark.parametrize("epsilon", [0.0, 0.1, 1.0])
def test_loss_is_the_cross_entropy_to_a_smoothed_target(epsilon: float) -> None:
    model, step = make_llama(), make_step()
    rows = log_probabilities(logits_of(model, step.input_ids, step.document_ids))
    expected = []
    for row, place in valid_tokens(step):
        target = np.full(64, epsilon / 64)
        target[int(step.labels[row, place])] += 1 - epsilon
        expected.append(-float(target @ rows[row, place]))
    actual = float(training_loss(LabelSmoothing(epsilon), model, step).detach())
    assert actual == pytest.approx(mean(expected), abs=1e-5)


def test_it_needs_no_logits() -> None:
    assert not Regularizers([LabelSmoothing()]).requirements.logits


def test_gradient() -> None:
    logits = torch.randn(5, 7, dtype=torch.float64, requires_grad=True)

    def loss(logits: torch.Tensor) -> torch.Tensor:
        partition = logits.logsumexp(-1)
        return smoothed_loss(partition - logits[:, 0], partition, logits.mean(-1), 0.3)

    assert torch.autograd.gradcheck(loss, logits)
    [gradient] = torch.autograd.grad(loss(logits).sum(), logits)
    target = torch.full((5, 7), 0.3 / 7, dtype=torch.float64)
    target[:, 0] += 0.7
    torch.testing.assert_close(gradient, logits.detach().softmax(-1) - target)
