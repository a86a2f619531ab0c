from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import scipy.stats
import torch
from torch import Tensor
from torch.autograd import gradcheck

from regularizers import Outputs, Regularizers
from regularizers.r_drop import RDrop, symmetric_kl
from regularizers.testing import ToyLM, make_step, training_loss
from regularizers.testing.toy import first_forward, logits_of, provide
from tests.helpers.float64 import log_probabilities, losses, mean, valid_tokens
from tests.helpers.llama import make_llama


def outputs_of(logits: Tensor) -> Outputs:
    """Return outputs that keep the precision of the logits."""
    known = torch.zeros_like(logits[..., 0])
    return Outputs(known, known, known, known, known.bool(), logits)


def repeat(outputs: Outputs, *_: object, **__: object) -> Outputs:
    """Return known outputs in place of a second pass."""
    return outputs


def test_loss_against_float64() -> None:
    model, step, alpha = make_llama(layers=2), make_step(), 3.0
    for layer in model.model.layers:
        layer.self_attn.attention_dropout = 0.3
    torch.manual_seed(5)
    first, second = (logits_of(model, step.input_ids, step.document_ids) for _ in range(2))
    p, q = np.exp(log_probabilities(first)), np.exp(log_probabilities(second))
    divergence = mean(
        [
            (scipy.stats.entropy(p[at], q[at]) + scipy.stats.entropy(q[at], p[at])) / 2
            for at in valid_tokens(step)
        ]
    )
    one, other = (mean(list(losses(each, step).values())) for each in (first, second))
    torch.manual_seed(5)
    actual = training_loss(RDrop(alpha), model, step).item()
    assert actual == pytest.approx((one + other) / 2 + alpha * divergence, abs=1e-5)
    assert divergence > 1e-3
    assert abs(one - other) > 1e-3


def test_without_dropout_it_is_plain_training() -> None:
    step = make_step()
    loss, plain = (training_loss(RDrop(each), ToyLM(), step) for each in (5.0, 0.0))
    torch.testing.assert_close(loss, plain)


def test_strength_zero_saves_the_second_pass() -> None:
    for strength, passes in ((0.0, 1), (0.1, 2)):
        model = ToyLM(dropout=0.1)
        training_loss(RDrop(strength), model, make_step())
        assert model.calls == passes


def test_swapping_the_passes_changes_nothing() -> None:
    model, regularizers = ToyLM(dropout=0.3), Regularizers([RDrop(2.0)])
    step = provide(model, regularizers, make_step())
    first, second = (first_forward(model, regularizers, step) for _ in range(2))
    forth, back = (
        regularizers.mean_loss(one, replace(step, second_forward=partial(repeat, other)))
        for one, other in ((first, second), (second, first))
    )
    torch.testing.assert_close(forth, back)


def test_divergence_gradcheck() -> None:
    generator = torch.Generator().manual_seed(0)
    first, second = (
        torch.randn(1, 3, 5, dtype=torch.float64, generator=generator).requires_grad_()
        for _ in range(2)
    )
    assert gradcheck(lambda p, q: symmetric_kl(outputs_of(p), outputs_of(q)), (first, second))
