import numpy as np
import pytest
import scipy.stats
import torch

from regularizers import Outputs, Regularizers
from regularizers.reference_kl import ReferenceKL
from regularizers.testing import ToyLM, make_step, training_loss
from regularizers.testing.toy import first_forward, logits_of, provide
from tests.helpers.float64 import log_probabilities, losses, mean, valid_tokens
from tests.helpers.llama import make_llama


def test_loss_against_float64() -> None:
    model, base, step = make_llama(), make_llama(seed=1), make_step()
    ours, theirs = (logits_of(each, step.input_ids, step.document_ids) for each in (model, base))
    q, p = np.exp(log_probabilities(ours)), np.exp(log_probabilities(theirs))
    divergence = mean([float(scipy.stats.entropy(p[at], q[at])) for at in valid_tokens(step)])
    expected = mean(list(losses(ours, step).values())) + 0.7 * divergence
    actual = training_loss(ReferenceKL(0.7), model, step, base).item()
    assert actual == pytest.approx(expected, abs=1e-5)
    backwards = mean([float(scipy.stats.entropy(q[at], p[at])) for at in valid_tokens(step)])
    assert abs(divergence - backwards) > 1e-3


def test_the_model_before_training_costs_nothing() -> None:
    step = make_step()
    loss, plain = (training_loss(ReferenceKL(each), ToyLM(), step, ToyLM()) for each in (5.0, 0.0))
    torch.testing.assert_close(loss, plain)


def test_large_factors_pull_the_model_back_to_the_base() -> None:
    model, base, step = ToyLM(), ToyLM(seed=1), make_step()
    optimizer = torch.optim.Adam(model.parameters(), lr=0.05)

    def divergence() -> float:
        q, p = (
            Outputs.from_logits(each(step.input_ids), step.labels, step.document_ids)
            for each in (model, base)
        )
        return float(p.kl_divergence(q)[step.valid].detach().mean())

    before = divergence()
    for _ in range(100):
        optimizer.zero_grad()
        training_loss(ReferenceKL(100.0), model, step, base).backward()
        optimizer.step()
    assert divergence() < before / 10


def test_prompts_cost_nothing() -> None:
    model, regularizers, step = ToyLM(), Regularizers([ReferenceKL(1.0)]), make_step()
    prompt = torch.arange(24) < 12
    step = provide(model, regularizers, make_step(labels=step.labels.masked_fill(prompt, -100)))
    token_loss = regularizers.on_token_loss(first_forward(model, regularizers, step), step)
    assert not token_loss.loss[:, :12].any()
    assert token_loss.loss[step.valid].all()


def test_the_base_model_gets_no_gradient() -> None:
    base = ToyLM(seed=1)
    training_loss(ReferenceKL(1.0), ToyLM(), make_step(), base).backward()
    assert all(parameter.grad is None for parameter in base.parameters())
