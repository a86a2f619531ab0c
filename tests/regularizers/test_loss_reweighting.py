from collections.abc import Mapping

import numpy as np
import pytest
import scipy.special
import torch
from torch import Tensor

from regularizers import Constant, Curriculum, Regularizers, Step, TrainingStep
from regularizers.loss_reweighting import LossReweighting, lin_upper_weights
from regularizers.testing import ToyLM, make_step, training_loss
from regularizers.testing.toy import first_forward, logits_of, provide
from tests.helpers.float64 import losses, mean
from tests.helpers.llama import make_llama


def published_weights(sample_losses: list[float], temperature: float) -> np.ndarray:
    """Compute n·w in float64, step by step as published, with δ = 1."""
    values = np.array(sample_losses)
    span = values.max() - values.min()
    scaled = 2 * values / span - (values.max() + values.min()) / span
    weights: np.ndarray = scipy.special.softmax(np.minimum(scaled + 1, 1) / temperature)
    return len(values) * weights


def by_document(logits: Tensor, step: TrainingStep) -> list[list[float]]:
    """Return the losses of the tokens of each document that has any, in float64."""
    documents: dict[tuple[int, int], list[float]] = {}
    for (row, place), loss in losses(logits, step).items():
        document = (row, int(step.document_ids[row, place]))
        documents.setdefault(document, []).append(loss)
    return list(documents.values())


@pytest.mark.parametrize("strength", [0.3, 1.0])
@pytest.mark.parametrize("temperature", [0.4, 2.0])
def test_loss_against_float64(strength: float, temperature: float) -> None:
    model, step = make_llama(), make_step()
    logits = logits_of(model, step.input_ids, step.document_ids)
    documents = by_document(logits, step)
    weights = published_weights([mean(each) for each in documents], temperature)
    weights = 1 + strength * (weights - 1)
    weighed = [w * loss for w, each in zip(weights, documents, strict=True) for loss in each]
    actual = training_loss(LossReweighting(strength, temperature), model, step).item()
    assert actual == pytest.approx(mean(weighed), abs=1e-5)
    assert len(documents) > 5
    assert abs(actual - training_loss(LossReweighting(0.0), model, step).item()) > 1e-3


def test_high_temperature_is_plain_training() -> None:
    step = make_step()
    loss, plain = (
        training_loss(LossReweighting(strength, 1e6), ToyLM(), step) for strength in (1.0, 0.0)
    )
    torch.testing.assert_close(loss, plain)


def test_low_temperature_leaves_the_lower_half_out() -> None:
    sample_losses = torch.tensor([1.0, 1.9, 2.1, 3.0])
    weights = lin_upper_weights(sample_losses, torch.ones(4), 1e-3)
    torch.testing.assert_close(weights, torch.tensor([0.0, 0.0, 2.0, 2.0]))


@pytest.mark.parametrize("values", [[2.0], [2.0, 2.0, 2.0]])
def test_equal_losses_weigh_the_same(values: list[float]) -> None:
    weights = lin_upper_weights(torch.tensor(values), torch.ones(len(values)), 0.4)
    assert weights.tolist() == [1.0] * len(values)


def test_documents_without_labels_take_no_part() -> None:
    model, step = ToyLM(), make_step()
    regularizers = Regularizers([LossReweighting()])
    without = step.document_ids != 0
    ignored = make_step(labels=step.labels.where(without, -100))
    documents = by_document(model(step.input_ids), ignored)
    weights = published_weights([mean(each) for each in documents], 0.4)
    weighed = [w * loss for w, each in zip(weights, documents, strict=True) for loss in each]
    loss = regularizers.mean_loss(first_forward(model, regularizers, ignored), ignored)
    assert loss.item() == pytest.approx(mean(weighed), abs=1e-5)


def test_weights_have_no_gradient() -> None:
    model, regularizers = ToyLM(), Regularizers([LossReweighting()])
    step = provide(model, regularizers, make_step())
    outputs = first_forward(model, regularizers, step)
    token_loss = regularizers.on_token_loss(outputs, step)
    [gradient] = torch.autograd.grad(token_loss.loss.sum(), outputs.nll)
    factor = (token_loss.loss / outputs.nll)[step.valid].detach()
    torch.testing.assert_close(gradient[step.valid], factor)
    assert factor.std() > 0.1


def test_weights_follow_both_curricula() -> None:
    def spread(regularizer: LossReweighting, progress: float) -> float:
        model, regularizers = ToyLM(), Regularizers([regularizer])
        step = make_step(progress=progress)
        outputs = first_forward(model, regularizers, step)
        factor = regularizers.on_token_loss(outputs, step).loss / outputs.nll
        return factor[step.valid].std().item()

    assert spread(LossReweighting(), 0.04) == 0
    assert spread(LossReweighting(), 0.05) > 0.1
    cooling = LossReweighting(1.0, Step([100.0, 0.4], [0.5]))
    assert 0 < spread(cooling, 0.49) < 0.01
    assert spread(cooling, 0.5) == pytest.approx(spread(LossReweighting(), 0.5))


def test_evaluations_reach_both_curricula() -> None:
    heard: list[Mapping[str, float]] = []

    class Listening(Constant):
        def on_evaluation(self, metrics: Mapping[str, float]) -> None:
            heard.append(metrics)

    LossReweighting(Listening(1.0), Listening(0.4)).on_evaluation({"val/loss": 1.0})
    assert heard == [{"val/loss": 1.0}] * 2


@pytest.mark.parametrize(
    "temperature", [0.0, Step([0.4, 0.0, 0.4], [0.501, 0.502]), Step([1.0, 2.0], [0.5], 0.1)]
)
def test_temperatures_that_reach_zero_are_refused(temperature: float | Curriculum) -> None:
    with pytest.raises(ValueError, match="temperature: expected numbers above 0"):
        LossReweighting(temperature=temperature)
