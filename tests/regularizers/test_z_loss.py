import pytest
import scipy.special
import torch

from regularizers import ZLoss
from regularizers.testing import make_step, training_loss
from regularizers.testing.toy import logits_of
from regularizers.z_loss import z_penalty
from tests.helpers.float64 import losses, mean, valid_tokens
from tests.helpers.llama import make_llama


@pytest.mark.parametrize("factor", [0.0, 1e-4, 0.1])
def test_loss_is_the_published_formula(factor: float) -> None:
    model, step = make_llama(), make_step()
    logits = logits_of(model, step.input_ids, step.document_ids)
    partitions = scipy.special.logsumexp(logits.detach().double().numpy(), axis=-1)
    squares = [float(partitions[row, place - 1]) ** 2 for row, place in valid_tokens(step)]
    expected = mean(list(losses(logits, step).values())) + factor * mean(squares)
    actual = float(training_loss(ZLoss(factor), model, step).detach())
    assert actual == pytest.approx(expected, abs=1e-5)


def test_normalized_logits_cost_nothing() -> None:
    log_probabilities = torch.randn(2, 3, 9, dtype=torch.float64).log_softmax(-1)
    valid = torch.ones(2, 3, dtype=torch.bool)
    assert z_penalty(log_probabilities.logsumexp(-1), valid, 1.0) == pytest.approx(0.0, abs=1e-20)
    drifted = (log_probabilities + 3).logsumexp(-1)
    assert z_penalty(drifted, valid, 1.0) == pytest.approx(9.0)


def test_gradcheck() -> None:
    logits = torch.randn(2, 3, 5, dtype=torch.float64, requires_grad=True)
    valid = torch.tensor([[True, False, True], [True, True, False]])
    assert torch.autograd.gradcheck(
        lambda logits: z_penalty(logits.logsumexp(-1), valid, 0.3), logits
    )
