"""Checks that a regularizer treats tokens as its requirements declare, as a pytest class."""

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from regularizers.compose import Regularizers
from regularizers.local import KnownDivergences, LocalLoss
from regularizers.outputs import Outputs
from regularizers.testing.cases import Case
from regularizers.testing.steps import make_step
from regularizers.testing.toy import ToyLM, first_forward, provide
from regularizers.training_step import TrainingStep


class PartsContract:
    """Checks of ``reads`` in the requirements."""

    def test_parts_have_the_loss_of_the_whole(self, case: Case) -> None:
        """With ``reads`` other than ``batch``, parts of the tokens give the same gradient."""
        regularizers = Regularizers([case.build(0.3)])
        if not regularizers.reads_parts:
            return
        found = []
        for reduce in (Regularizers.reduce, _reduce_by_parts):
            model = ToyLM()
            step = provide(model, regularizers, make_step())
            loss, weight = reduce(regularizers, first_forward(model, regularizers, step), step)
            loss.backward()
            gradients = [each.grad for each in model.parameters()]
            found.append([loss, weight, *gradients, step.metrics])
        whole, parts = found
        torch.testing.assert_close(
            parts,
            whole,
            msg=lambda message: (
                f"expected equal results for parts of the tokens and for all, got others: does a "
                f"hook read other tokens? Set reads='batch' in the requirements. {message}"
            ),
        )


def _reduce_by_parts(
    regularizers: Regularizers, outputs: Outputs, step: TrainingStep
) -> tuple[Tensor, Tensor]:
    local_loss = LocalLoss(regularizers, step, regularizers.on_token_weight(step))
    partner = None
    if local_loss.partner is not None:
        partner = getattr(step, local_loss.partner)()
        if regularizers.requirements.divergence:
            divergences = outputs.kl_divergences(partner)
            outputs = replace(outputs, predictions=KnownDivergences(divergences))
            partner = replace(partner, predictions=KnownDivergences(divergences[::-1]))
    rows = [slice(first, first + 5) for first in range(0, outputs.nll.numel(), 5)]
    parts = [
        local_loss(each, _part(outputs, each), None if partner is None else _part(partner, each))
        for each in rows
    ]
    summed = torch.stack(parts).sum()
    return local_loss.reduce(replace(outputs, weighted_loss=summed))


def _part(outputs: Outputs, rows: slice) -> Outputs:
    def cut(value: Any) -> Any:
        if isinstance(value, KnownDivergences):
            return KnownDivergences((cut(value.values[0]), cut(value.values[1])))
        return value.flatten()[None, rows] if isinstance(value, Tensor) else value

    return Outputs(**{name: cut(value) for name, value in vars(outputs).items()})
