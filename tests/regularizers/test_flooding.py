from dataclasses import replace

import pytest
import torch
from torch import Tensor

from regularizers import Flooding, Regularizers, TrainingStep
from regularizers.flooding import flooded_loss
from regularizers.testing import ToyLM, make_step, training_loss
from regularizers.testing.steps import slice_rows
from regularizers.testing.toy import first_forward, logits_of
from tests.helpers.float64 import losses, mean
from tests.helpers.llama import make_llama

STEP = make_step()


def plain_loss() -> float:
    logits = logits_of(make_llama(), STEP.input_ids, STEP.document_ids)
    return mean(list(losses(logits, STEP).values()))


@pytest.mark.parametrize("level", [0.0, 0.5, 30.0])
def test_loss_is_the_published_formula(level: float) -> None:
    actual = float(training_loss(Flooding(1.0, level), make_llama(), STEP).detach())
    assert actual == pytest.approx(abs(plain_loss() - level) + level, abs=1e-4)


def test_strength_interpolates_the_loss_and_its_gradient() -> None:
    model = make_llama()
    weight = model.lm_head.weight
    plain = torch.autograd.grad(training_loss(Flooding(0.0, 30.0), model, STEP), weight)[0]
    for strength in (0.25, 0.5, 1.0):
        loss = training_loss(Flooding(strength, 30.0), model, STEP)
        expected = plain_loss() + strength * 2 * (30 - plain_loss())
        assert float(loss.detach()) == pytest.approx(expected, abs=1e-4)
        [gradient] = torch.autograd.grad(loss, weight)
        torch.testing.assert_close(gradient, (1 - 2 * strength) * plain)


def test_level_is_the_lowest_validation_loss() -> None:
    regularizer, model = Flooding(), make_llama()
    # Before the second evaluation there is no flooding, as with level 0.
    for metrics, level in (
        ({}, 0.0),
        ({"val/loss": 45.0}, 0.0),
        ({"val/loss": 40.0}, 40.0),
        ({"val/loss": 30.0}, 30.0),
        ({"val/loss": 50.0}, 30.0),
        ({"val/loss": float("nan")}, 30.0),
    ):
        regularizer.on_evaluation(metrics)
        expected = abs(plain_loss() - level) + level
        actual = float(training_loss(regularizer, model, STEP).detach())
        assert actual == pytest.approx(expected, abs=1e-4)


def test_given_level_wins_over_validation() -> None:
    regularizer = Flooding(level=30.0)
    regularizer.on_evaluation({"val/loss": 1.0})
    actual = float(training_loss(regularizer, make_llama(), STEP).detach())
    assert actual == pytest.approx(60 - plain_loss(), abs=1e-4)


def reduce_on_ranks(
    model: ToyLM, level: float, parts: list[TrainingStep]
) -> list[tuple[Tensor, Tensor]]:
    """Run the step as several ranks would: each receives the gathered tensors of all."""
    regularizers = Regularizers([Flooding(level=level)])
    outputs = [first_forward(model, regularizers, part) for part in parts]
    told: list[Tensor] = []

    def tell(values: Tensor) -> Tensor:
        told.append(values)
        return values

    for part, own in zip(parts, outputs, strict=True):
        regularizers.reduce(own, replace(part, gather=tell))
    everything = torch.cat(told)
    return [
        regularizers.reduce(own, replace(part, gather=lambda _own: everything))
        for part, own in zip(parts, outputs, strict=True)
    ]


def mean_of(model: ToyLM, step: TrainingStep) -> float:
    [(loss, weight)] = reduce_on_ranks(model, 0.0, [step])
    return float((loss / weight).detach())


def test_ranks_together_are_one_process_with_the_whole_batch() -> None:
    model = ToyLM()
    parts = [slice_rows(STEP, slice(0, 1)), slice_rows(STEP, slice(1, 3))]
    low, high = sorted(mean_of(model, part) for part in parts)
    middle, between = mean_of(model, STEP), (low + high) / 2
    assert low < middle < high
    # The last level separates the mean over tokens from the mean over ranks.
    for level in ((low + middle) / 2, (middle + high) / 2, (middle + between) / 2):
        [(whole, weight)] = reduce_on_ranks(model, level, [STEP])
        split = reduce_on_ranks(model, level, parts)
        together = split[0][0] + split[1][0]
        assert float(sum(each.detach() for _, each in split)) == float(weight)
        torch.testing.assert_close(together, whole)
        [expected] = torch.autograd.grad(whole, [model.head])
        [actual] = torch.autograd.grad(together, [model.head])
        torch.testing.assert_close(actual, expected)


def test_share_of_flooded_batches_is_logged() -> None:
    for level, share in ((0.0, 0.0), (30.0, 1.0)):
        step = replace(STEP, metrics={})
        regularizers = Regularizers([Flooding(level=level)])
        regularizers.reduce(first_forward(ToyLM(), regularizers, step), step)
        assert step.metrics["flooding/flooded"] == share


@pytest.mark.parametrize("level", [-1.0, float("inf"), float("nan")])
def test_bad_levels_are_refused(level: float) -> None:
    with pytest.raises(ValueError, match="Flooding level: expected a finite loss"):
        Flooding(level=level)


def test_gradcheck() -> None:
    loss = torch.tensor(1.3, dtype=torch.float64, requires_grad=True)
    for level in (0.5, 2.0):
        assert torch.autograd.gradcheck(
            lambda loss, level=level: flooded_loss(loss, loss.detach(), level), loss
        )
