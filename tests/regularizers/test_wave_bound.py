import math
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from regularizers import Regularizers, TokenLoss, TrainingStep
from regularizers.testing import ToyLM, make_step
from regularizers.testing.steps import slice_rows
from regularizers.testing.toy import first_forward, logits_of, make_teacher, provide
from regularizers.wave_bound import WaveBound, wave_bound
from tests.helpers.float64 import losses

STEP = make_step(4, 30)


def token_loss(regularizer: WaveBound, step: TrainingStep = STEP) -> tuple[TokenLoss, Tensor]:
    """Return loss and weight of each token, and the plain loss."""
    model, regularizers = ToyLM(), Regularizers([regularizer])
    step = provide(model, regularizers, step)
    outputs = first_forward(model, regularizers, step)
    return regularizers.on_token_loss(outputs, step), outputs.nll


def means() -> tuple[float, float]:
    """Return the mean loss of the toy model and that of its teacher, in float64."""
    of_each = (
        losses(logits_of(model, STEP.input_ids, STEP.document_ids), STEP)
        for model in (ToyLM(), make_teacher())
    )
    student, teacher = (sum(each.values()) / len(each) for each in of_each)
    return student, teacher


@pytest.mark.parametrize("strength", [0.3, 1.0])
@pytest.mark.parametrize("distance", [-0.1, 0.0, 0.1])
def test_the_mean_of_the_batch_is_bounded_as_in_the_paper(strength: float, distance: float) -> None:
    student, teacher = means()
    # The mean is below the bound, at it (where rounding must not matter), or above it.
    epsilon = teacher - student + distance
    actual, plain = token_loss(WaveBound(strength, epsilon))
    bound = teacher - epsilon
    expected = (1 - strength) * student + strength * (abs(student - bound) + bound)
    mean = (actual.weight * actual.loss).sum() / actual.weight.sum()
    assert mean.item() == pytest.approx(expected, rel=1e-5)
    assert torch.equal(actual.weight, STEP.valid.float())
    # Many single tokens are on the other side of their own bounds.
    assert torch.equal(actual.loss, plain) == (distance > 0) or distance == 0


def test_the_gradient_of_a_batch_is_reversed_as_a_whole() -> None:
    for epsilon, sign in ((0.1, -1.0), (100.0, 1.0)):
        model, regularizers = ToyLM(), Regularizers([WaveBound(epsilon=epsilon)])
        step = provide(model, regularizers, STEP)
        outputs = first_forward(model, regularizers, step)
        mean = outputs.nll.sum() / step.valid.sum()
        [plain] = torch.autograd.grad(mean, [model.head], retain_graph=True)
        [bounded] = torch.autograd.grad(regularizers.mean_loss(outputs, step), [model.head])
        torch.testing.assert_close(bounded, sign * plain)
        assert step.metrics["wave_bound/below_bound"] == (sign < 0)


def test_ranks_compare_the_mean_of_the_whole_batch() -> None:
    parts = [slice_rows(STEP, slice(0, 1)), slice_rows(STEP, slice(1, 4))]
    student, teacher = means()
    whole, _ = token_loss(WaveBound(epsilon=teacher - student - 0.01))
    sums: list[Tensor] = []
    for part in parts:
        token_loss(WaveBound(), replace(part, gather=lambda own: sums.append(own) or own))
    everything = torch.cat(sums)
    first, second = (everything[:, 0] / everything[:, 1]).tolist()
    assert abs(first - second) > 0.1
    for rows, part in zip((slice(0, 1), slice(1, 4)), parts, strict=True):
        gathered = replace(part, gather=lambda own: everything)
        actual, _ = token_loss(WaveBound(epsilon=teacher - student - 0.01), gathered)
        torch.testing.assert_close(actual.loss, whole.loss[rows])


def test_gradcheck() -> None:
    generator = torch.Generator().manual_seed(0)
    loss, teacher = torch.rand(2, 3, 5, generator=generator, dtype=torch.float64)
    loss.requires_grad_()
    for excess in (-0.2, 0.2):
        given = torch.tensor(excess)
        assert torch.autograd.gradcheck(
            lambda loss, given=given: wave_bound(loss, teacher, given, 0.1), loss
        )


def test_two_bounds_are_refused() -> None:
    with pytest.raises(ValueError, match="WaveBound: expected one WaveBound, got two"):
        Regularizers([WaveBound(), WaveBound()]).check(STEP.vocabulary)


@pytest.mark.parametrize("decay", [1.0, -0.1, math.nan])
def test_bad_decay_is_refused(decay: float) -> None:
    with pytest.raises(ValueError, match=r"WaveBound decay: expected a number in \[0, 1\)"):
        WaveBound(decay=decay)
