import numpy as np
import pytest
import scipy.stats
import torch

from regularizers import EAFT, Outputs, Regularizers
from regularizers.testing import make_step, training_loss
from regularizers.testing.toy import logits_of
from tests.helpers.float64 import log_probabilities, losses, mean
from tests.helpers.llama import make_llama


@pytest.mark.parametrize("strength", [0.0, 0.3, 1.0])
def test_loss_is_that_of_the_authors_in_float64(strength: float) -> None:
    model, step = make_llama(), make_step()
    with torch.no_grad():
        # Predictions from nearly sure to nearly uniform.
        model.lm_head.weight *= 4
        model.model.norm.weight[:8] *= 0.1
    logits = logits_of(model, step.input_ids, step.document_ids)
    probabilities = np.sort(np.exp(log_probabilities(logits)), axis=-1)[..., -20:]
    # scipy renormalizes the 20 most likely tokens.
    plain = losses(logits, step)
    entropies = {at: float(scipy.stats.entropy(probabilities[at])) for at in plain}
    assert min(entropies.values()) < 1.5 < 2.7 < max(entropies.values())
    expected = mean(
        [loss * (1 + strength * (entropies[at] / 3.0 - 1)) for at, loss in plain.items()]
    )
    actual = float(training_loss(EAFT(strength), model, step).detach())
    assert actual == pytest.approx(expected, abs=1e-5)


def test_the_weight_carries_no_gradient() -> None:
    step = make_step()
    logits = (4 * torch.randn(3, 24, 64)).requires_grad_()
    outputs = Outputs.from_logits(logits, step.labels, step.document_ids, top_k=20)
    [actual] = torch.autograd.grad(Regularizers([EAFT()]).mean_loss(outputs, step), logits)
    outputs = Outputs.from_logits(logits, step.labels, step.document_ids)
    aligned = logits.detach()[:, :-1].topk(20).values.log_softmax(-1)
    weight = torch.zeros(3, 24)
    weight[:, 1:] = -(aligned.exp() * aligned).sum(-1) / 3.0
    [expected] = torch.autograd.grad((weight * outputs.nll).sum() / step.valid.sum(), logits)
    torch.testing.assert_close(actual, expected)


def test_certain_tokens_do_not_count() -> None:
    step = make_step()
    logits = torch.zeros(3, 24, 64)
    logits[..., 3] = 100.0
    outputs = Outputs.from_logits(logits, step.labels, step.document_ids, top_k=20)
    assert outputs.nll[step.valid].max() > 50
    assert Regularizers([EAFT()]).mean_loss(outputs, step) == pytest.approx(0.0, abs=1e-6)
    assert step.metrics["eaft/weight"] == pytest.approx(0.0, abs=1e-6)


def test_weights_do_not_saturate_over_a_large_vocabulary() -> None:
    """The entropy over the whole vocabulary, capped at ln 20, would give most tokens weight 1."""
    step = make_step(4, 48)
    logits = 2 * torch.randn(4, 48, 5000, generator=torch.Generator().manual_seed(0))
    outputs = Outputs.from_logits(logits, step.labels, step.document_ids, top_k=20)
    assert (outputs.entropy[step.valid] > np.log(20)).all()
    assert outputs.top_entropy is not None
    weights = outputs.top_entropy[step.valid] / 3.0
    assert (weights < 0.99).all()
    assert weights.std() > 0.01
