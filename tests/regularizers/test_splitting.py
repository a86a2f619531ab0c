"""Results do not depend on the split of a batch into micro-batches or over ranks."""

from unittest.mock import patch

import pytest
import torch
from torch import Tensor

from regularizers import Regularizer, Regularizers, TrainingStep
from regularizers.discovery import own_regularizers
from regularizers.testing import ToyLM, make_step
from regularizers.testing.cases import Case
from regularizers.testing.steps import slice_rows
from regularizers.testing.toy import first_forward, provide

# Methods that compare a token, a document or the mean loss with the rest of the micro-batch.
OF_THE_BATCH = {"Flooding", "LossReweighting", "Rho1", "WaveBound"}


def reduce(regularizer: Regularizer, step: TrainingStep) -> tuple[Tensor, Tensor, Tensor]:
    """Return summed loss, summed weight, and the gradient of the summed loss."""
    model, regularizers = ToyLM(), Regularizers([regularizer])
    step = provide(model, regularizers, step)
    loss, weight = regularizers.reduce(first_forward(model, regularizers, step), step)
    [gradient] = torch.autograd.grad(loss, [model.head])
    return loss.detach(), weight.detach(), gradient


def draws(kind: type[Regularizer]) -> bool:
    """Return whether a method draws random numbers, which differ between micro-batches."""
    generator = TrainingStep.generator
    with patch.object(TrainingStep, "generator", autospec=True, side_effect=generator) as spy:
        reduce(Case(kind).build(0.5), make_step())
    return bool(spy.called)


def kinds() -> list[type[Regularizer]]:
    candidates = {name: kind for name, kind in own_regularizers().items() if not draws(kind)}
    assert candidates.keys() >= OF_THE_BATCH
    return [kind for name, kind in candidates.items() if name not in OF_THE_BATCH]


@pytest.mark.parametrize("kind", kinds())
def test_halves_of_a_batch_sum_to_the_whole(kind: type[Regularizer]) -> None:
    # Rows with different numbers of labels.
    step = make_step(5, 40)
    regularizer = Case(kind).build(0.3)
    halves = [reduce(regularizer, slice_rows(step, rows)) for rows in (slice(2), slice(2, 5))]
    assert halves[0][1] != halves[1][1]
    for first, second, whole in zip(*halves, reduce(regularizer, step), strict=True):
        torch.testing.assert_close(first + second, whole)
