import math
from typing import Any

import numpy as np
import pytest
import scipy.stats
import torch

from regularizers import EAFT, ConfidencePenalty, Outputs, Regularizers
from regularizers.eaft import normalized_entropy
from regularizers.testing import make_step, training_loss
from regularizers.testing.toy import logits_of
from tests.helpers.float64 import log_probabilities, losses, mean
from tests.helpers.llama import make_llama

WEIGHTS = {
    "ln_20": lambda entropy: min(entropy / math.log(20), 1.0),
    "ln_vocabulary": lambda entropy: entropy / math.log(64),
    "nat": lambda entropy: min(entropy, math.log(20)),
}


@pytest.mark.parametrize("strength", [0.0, 0.3, 1.0])
@pytest.mark.parametrize("normalizer", list(WEIGHTS))
def test_loss_is_the_published_formula(strength: float, normalizer: Any) -> None:
    model, step = make_llama(), make_step()
    with torch.no_grad():
        # Predictions from nearly sure to nearly uniform, on both sides of ln 20.
        model.lm_head.weight *= 4
        model.model.norm.weight[:8] *= 0.1
    logits = logits_of(model, step.input_ids, step.document_ids)
    p = np.exp(log_probabilities(logits))
    entropies = {at: float(scipy.stats.entropy(p[at])) for at in losses(logits, step)}
    assert min(entropies.values()) < 2 < math.log(20) < max(entropies.values())
    expected = mean(
        [
            loss * (1 - strength + strength * WEIGHTS[normalizer](entropies[at]))
            for at, loss in losses(logits, step).items()
        ]
    )
    actual = float(training_loss(EAFT(strength, normalizer), model, step).detach())
    assert actual == pytest.approx(expected, abs=1e-5)


def test_units_differ_by_a_factor_alone() -> None:
    entropy = torch.linspace(0, 9, 50, dtype=torch.float64)
    ratio = normalized_entropy(entropy, "nat", 64) / normalized_entropy(entropy, "ln_20", 64)
    torch.testing.assert_close(ratio[1:], torch.full((49,), math.log(20), dtype=torch.float64))


def test_the_weight_carries_no_gradient() -> None:
    step = make_step()
    # Low entropy, because a capped entropy has no gradient anyway.
    logits = (4 * torch.randn(3, 24, 64)).requires_grad_()
    outputs = Outputs.from_logits(logits, step.labels, step.document_ids, entropy_gradient=True)
    [actual] = torch.autograd.grad(
        Regularizers([EAFT(), ConfidencePenalty(0.0)]).mean_loss(outputs, step), logits
    )
    outputs = Outputs.from_logits(logits, step.labels, step.document_ids)
    weight = outputs.entropy.nan_to_num(0.0) / math.log(20)
    loss = (weight.clamp(max=1) * outputs.nll).sum() / step.valid.sum()
    [expected] = torch.autograd.grad(loss, logits)
    torch.testing.assert_close(actual, expected)


def test_certain_tokens_do_not_count() -> None:
    step = make_step()
    logits = torch.zeros(3, 24, 64)
    logits[..., 3] = 100.0
    outputs = Outputs.from_logits(logits, step.labels, step.document_ids)
    assert outputs.nll[step.valid].max() > 50
    assert Regularizers([EAFT()]).mean_loss(outputs, step) == pytest.approx(0.0, abs=1e-6)


def test_unknown_normalizer_is_refused() -> None:
    with pytest.raises(ValueError, match="EAFT normalizer: expected one of ln_20"):
        EAFT(normalizer="ln_3")  # type: ignore[arg-type]
