from dataclasses import replace

import numpy as np
import pytest
import scipy.stats
import torch

from regularizers import ConfidencePenalty
from regularizers.confidence_penalty import confidence_penalty
from regularizers.distributions import token_entropy
from regularizers.testing import make_step, training_loss
from regularizers.testing.toy import logits_of
from tests.helpers.float64 import log_probabilities, losses, mean, valid_tokens
from tests.helpers.llama import make_llama


@pytest.mark.parametrize("beta", [0.0, 0.1, 2.0])
def test_loss_is_the_published_formula(beta: float) -> None:
    model, step = make_llama(), make_step()
    logits = logits_of(model, step.input_ids, step.document_ids)
    p = np.exp(log_probabilities(logits))
    entropies = [float(scipy.stats.entropy(p[at])) for at in valid_tokens(step)]
    expected = mean(list(losses(logits, step).values())) - beta * mean(entropies)
    actual = float(training_loss(ConfidencePenalty(beta), model, step).detach())
    assert actual == pytest.approx(expected, abs=1e-5)


def test_gradient_flows_through_the_entropy() -> None:
    model, step = make_llama(), make_step()
    weight = model.lm_head.weight
    gradients = [
        torch.autograd.grad(training_loss(ConfidencePenalty(beta), model, step), weight)[0]
        for beta in (0.0, 1.0)
    ]
    logits = logits_of(model, step.input_ids, step.document_ids)
    valid = step.valid[:, 1:]
    entropy = token_entropy(logits[:, :-1][valid]).mean()
    [expected] = torch.autograd.grad(-entropy, weight)
    torch.testing.assert_close(gradients[1] - gradients[0], expected, atol=1e-6, rtol=1e-3)


def test_prompts_do_not_count() -> None:
    model, step = make_llama(), make_step()
    prompt = step.labels.clone()
    prompt[:, :12] = -100
    step = replace(step, labels=prompt)
    p = np.exp(log_probabilities(logits_of(model, step.input_ids, step.document_ids)))
    entropies = [float(scipy.stats.entropy(p[at])) for at in valid_tokens(step)]
    with_penalty, without = (training_loss(ConfidencePenalty(b), model, step) for b in (1.0, 0.0))
    assert float((without - with_penalty).detach()) == pytest.approx(mean(entropies), abs=1e-5)


def test_gradcheck() -> None:
    logits = torch.randn(2, 3, 5, dtype=torch.float64, requires_grad=True)
    valid = torch.tensor([[True, False, True], [True, True, False]])
    assert torch.autograd.gradcheck(
        lambda logits: confidence_penalty(token_entropy(logits), valid, 0.7), logits
    )
