import math
from typing import Any

import pytest
import torch
from torch import nn

from regularizers import Regularizers, TrainingStep
from regularizers.rho1 import Rho1
from regularizers.testing import ToyLM, make_step, training_loss
from regularizers.testing.toy import first_forward, logits_of, provide
from tests.helpers.float64 import losses, mean
from tests.helpers.llama import make_llama
from tests.regularizers.reference import group_of


def kept_losses(
    model: nn.Module, reference: nn.Module, step: TrainingStep, share: float, scope: str
) -> list[float]:
    ours, theirs = (
        losses(logits_of(each, step.input_ids, step.document_ids), step)
        for each in (model, reference)
    )
    groups: dict[Any, list[tuple[int, int]]] = {}
    for row, place in ours:
        group = group_of(row, int(step.document_ids[row, place]), scope)
        groups.setdefault(group, []).append((row, place))
    return [
        ours[at]
        for members in groups.values()
        for at in sorted(members, key=lambda at: ours[at] - theirs[at])[
            math.floor(share * len(members)) :
        ]
    ]


@pytest.mark.parametrize("scope", ["batch", "sequence", "document"])
@pytest.mark.parametrize("share", [0.4, 0.75])
def test_loss_against_float64(scope: Any, share: float) -> None:
    model, reference, step = make_llama(), make_llama(seed=1), make_step()
    expected = mean(kept_losses(model, reference, step, share, scope))
    actual = training_loss(Rho1(share, scope), model, step, reference).item()
    assert actual == pytest.approx(expected, abs=1e-5)
    assert abs(actual - training_loss(Rho1(0.0), model, step).item()) > 1e-2


def test_everything_left_out_is_an_attached_zero() -> None:
    model = ToyLM()
    loss = training_loss(Rho1(1.0), model, make_step())
    loss.backward()
    assert loss == 0
    assert not model.head.grad.any()  # type: ignore[union-attr]


def test_gradient_is_that_of_the_kept_tokens_alone() -> None:
    model, step = ToyLM(), make_step()
    regularizers = Regularizers([Rho1(0.5)])
    step = provide(model, regularizers, step)
    outputs = first_forward(model, regularizers, step)
    [gradient] = torch.autograd.grad(regularizers.mean_loss(outputs, step), outputs.nll)
    kept = int(step.valid.sum()) - int(step.valid.sum()) // 2
    assert (gradient != 0).sum() == kept
    torch.testing.assert_close(gradient[gradient != 0], torch.full((kept,), 1 / kept))
