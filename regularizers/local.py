"""Losses of parts of the tokens of a step, for heads that evaluate them chunk by chunk.

B rows in the batch, T tokens in a row, n tokens in a part.
"""

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from functools import cached_property, partial
from typing import Any, Literal

import torch
from torch import Tensor

from regularizers.base import Reads, Regularizer, overrides
from regularizers.compose import Regularizers
from regularizers.curricula import Curriculum
from regularizers.functional import IGNORE_INDEX, predicted_labels
from regularizers.outputs import Outputs, TokenLoss
from regularizers.training_step import TrainingStep

Partner = Literal["second_forward", "reference"]


@dataclass(frozen=True)
class StepPart(TrainingStep):
    """Some tokens of a step, ``[1, n]`` each; labels that nothing predicts are ignored."""

    @cached_property
    def valid(self) -> Tensor:
        """``[1, n]`` bool: tokens whose loss counts."""
        return self.labels != IGNORE_INDEX


@dataclass(frozen=True)
class KnownDivergences:
    """Predictions of one of two passes; a :class:`~regularizers.outputs.Predictions`.

    Args:
        values: Divergence to the other pass, and from it, ``[1, n]`` nats each.
    """

    values: tuple[Tensor, Tensor]

    def kl_divergences(self, other: Any) -> tuple[Tensor, Tensor]:
        """Return both divergences; there is only one other pass."""
        return self.values


class LocalLoss:
    """Loss of a micro-batch, part by part, under regularizers that read each token's own outputs.

    A head calls it with the outputs of all parts, in order, and adds the results. Then
    :meth:`reduce` returns the loss of the step.

    Args:
        regularizers: Regularizers with ``reads_parts``.
        step: The training step.
        token_weight: Weights ``[B, T]`` before the forward pass.
        plain_weight: Weights ``[B, T]`` of tokens that regularizers skip; None for none.
    """

    def __init__(
        self,
        regularizers: Regularizers,
        step: TrainingStep,
        token_weight: Tensor,
        plain_weight: Tensor | None = None,
    ) -> None:
        #: The pass whose outputs each part needs too; None for none.
        self.partner = partner_of(regularizers, step.progress)
        self._regularizers, self._step, self._weight = regularizers, step, token_weight
        self._count = step.valid.sum().clamp(min=1)
        self._losses: list[Tensor] = []
        self._metrics: dict[str, Tensor] = {}
        values = {each.name: getattr(step, each.name) for each in fields(step)}
        values["labels"] = predicted_labels(step.labels, step.document_ids)
        self._whole = StepPart(**values)
        self._flat = _flat({**values, "weight": token_weight, "plain_weight": plain_weight})
        reading = _of_kind(regularizers, "token")
        self._penalizes = any(overrides(type(each), "on_loss") for each in reading)
        needed = {
            "reference": any(each.requirements.reference for each in reading),
            "teacher": any(each.requirements.teacher is not None for each in reading),
        }
        self._frozen = {
            name: _flat(vars(getattr(step, name)()))
            for name, wanted in needed.items()
            if wanted and name != self.partner
        }

    def __call__(self, rows: slice, outputs: Outputs, partner: Outputs | None = None) -> Tensor:
        """Return the summed loss of a part, a scalar with gradient.

        Args:
            rows: Place of the part among the B·T tokens.
            outputs: Outputs ``[1, n]`` of the part.
            partner: Outputs ``[1, n]`` of the pass that :attr:`partner` names.
        """
        fields_of_part: dict[str, Any] = _rows(self._flat, rows)
        weight = fields_of_part.pop("weight")
        plain_weight = fields_of_part.pop("plain_weight", None)
        passes = {name: Outputs(**_rows(frozen, rows)) for name, frozen in self._frozen.items()}
        if self.partner is not None and partner is not None:
            passes[self.partner] = partner
        for name, given in passes.items():
            fields_of_part[name] = partial(lambda given: given, given)
        part = replace(self._whole, **fields_of_part, metrics={})
        token_loss = TokenLoss(outputs.nll, weight.to(outputs.nll.dtype))
        changed = self._regularizers.change_token_loss(token_loss, outputs, part, "token")
        if changed.weight is not token_loss.weight:
            raise ValueError(
                f"one of {', '.join(self._regularizers.names)}: expected on_token_loss to keep "
                "the weights, because its requirements have reads='token': change the loss, or "
                "set reads='batch'"
            )
        self._losses.append(changed.loss.detach())
        total = (changed.weight * changed.loss).sum()
        if plain_weight is not None:
            total = total + (plain_weight * outputs.nll).sum()
        if not (self._penalizes or part.metrics):
            return total
        share = part.valid.sum().to(total.dtype) / self._count
        if self._penalizes:
            mean = self._regularizers.on_loss(torch.zeros_like(total), outputs, part, "token")
            total = total + self._weight.sum(dtype=total.dtype) * share * mean
        for name, value in part.metrics.items():
            self._metrics[name] = self._metrics.get(name, 0.0) + share * value
        return total

    def reduce(self, outputs: Outputs) -> tuple[Tensor, Tensor]:
        """Return the summed loss and the summed weight of the micro-batch, two scalars.

        Args:
            outputs: Outputs ``[B, T]``, with the sum of all parts as ``weighted_loss``.
        """
        step, regularizers = self._step, self._regularizers
        step.metrics.update(self._metrics)
        token_weight = self._weight.to(outputs.nll.dtype)
        summed, weight = outputs.weighted_loss, token_weight.sum()
        assert summed is not None, "the head has evaluated all parts"
        transforming = _of_kind(regularizers, "loss")
        if any(overrides(type(each), "on_token_loss") for each in transforming):
            loss = torch.cat(self._losses, 1).view_as(token_weight)
            token_loss = TokenLoss(share_gradient(loss, summed, weight), token_weight)
            token_loss = regularizers.change_token_loss(token_loss, outputs, step, "loss")
            summed = (token_loss.weight * token_loss.loss).sum()
        if any(overrides(type(each), "on_loss") for each in transforming):
            mean = summed / weight.clamp(min=1e-8)
            summed = regularizers.on_loss(mean, outputs, step, "loss") * weight
        return summed, weight


def share_gradient(loss: Tensor, summed: Tensor, weight: Tensor) -> Tensor:
    """Return losses of tokens with equal gradients, which add up to the gradient of their sum.

    They suffice for functions that treat all tokens alike.

    Args:
        loss: Losses of tokens without gradient.
        summed: Weighted sum of the losses, a scalar with gradient.
        weight: Sum of the weights, a scalar.

    >>> logit = torch.ones(2, requires_grad=True)
    >>> shared = share_gradient(torch.ones(2), logit.sum(), torch.tensor(2.0))
    >>> torch.autograd.grad(3 * shared.sum(), logit)
    (tensor([3., 3.]),)
    """
    return loss + (summed - summed.detach()) / weight.clamp(min=1e-8)


def _of_kind(regularizers: Regularizers, reads: Reads) -> list[Regularizer]:
    return [each for each in regularizers.ordered if each.requirements.reads == reads]


def partner_of(regularizers: Regularizers, progress: float | None = None) -> Partner | None:
    """Return the pass that the loss of each part needs beside the first one.

    Args:
        regularizers: Regularizers with ``reads_parts``.
        progress: Fraction of all optimizer steps that are done; None for any step.

    >>> from regularizers import RDrop
    >>> partner_of(Regularizers([RDrop()])), partner_of(Regularizers([RDrop(0.0)]), 0.5)
    ('second_forward', None)
    """
    for each in _of_kind(regularizers, "token"):
        curriculum = getattr(each, "curriculum", None)
        strength = 1.0
        if progress is not None and isinstance(curriculum, Curriculum):
            strength = curriculum(progress)
        # At strength 0, a regularizer is plain training.
        if each.requirements.second_forward and strength != 0:
            return "second_forward"
    comparing = any(each.requirements.divergence for each in _of_kind(regularizers, "token"))
    return "reference" if comparing and regularizers.requirements.reference else None


def _rows(values: Mapping[str, Tensor], rows: slice) -> dict[str, Any]:
    return {name: value[:, rows] for name, value in values.items()}


def _flat(values: Mapping[str, Any]) -> dict[str, Tensor]:
    """Return the values of each token, ``[1, B·T]``; others are left out."""
    return {
        name: value.flatten()[None]
        for name, value in values.items()
        if isinstance(value, Tensor) and value.dim() == 2
    }
