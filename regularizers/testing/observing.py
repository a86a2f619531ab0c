"""Observe the effects of a regularizer in one training step."""

from dataclasses import dataclass, fields

import torch
from torch import Tensor

from regularizers.base import Regularizer
from regularizers.compose import Regularizers
from regularizers.outputs import Outputs
from regularizers.testing.steps import make_step
from regularizers.testing.toy import (
    ToyLM,
    first_forward,
    penalty_on,
    provide,
    training_loss,
)
from regularizers.training_step import TrainingStep


@dataclass(frozen=True)
class Observation:
    """Everything that a regularizer may change in one step."""

    input_ids: Tensor
    embeddings: Tensor
    token_weight: Tensor
    loss: Tensor
    weight: Tensor
    mean: Tensor
    penalty: Tensor

    def differences(self, other: "Observation") -> list[str]:
        """Return the names of fields that differ from another step, even by one bit."""
        names = [each.name for each in fields(self)]
        return [
            name for name in names if not torch.equal(getattr(self, name), getattr(other, name))
        ]

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Observation) and not self.differences(other)


def make_model() -> ToyLM:
    """Return the model of the checks, with dropout, so that two passes differ."""
    return ToyLM(dropout=0.1)


def observe(
    regularizer: Regularizer, step: TrainingStep, *, training: bool = True
) -> tuple[Observation, Outputs]:
    """Run a step with one regularizer on a new model."""
    model = make_model()
    regularizers = Regularizers([regularizer]).train(training)
    step = provide(model, regularizers, step)
    outputs = first_forward(model, regularizers, step)
    token_loss = regularizers.on_token_loss(outputs, step)
    observation = Observation(
        regularizers.on_input_ids(step),
        regularizers.on_embeddings(model.embedding(step.input_ids), step),
        regularizers.on_token_weight(step),
        token_loss.loss,
        token_loss.weight,
        regularizers.on_loss(outputs.nll.mean(), outputs, step),
        penalty_on(model, regularizers, step.progress),
    )
    return observation, outputs


def gradient(regularizer: Regularizer, step: TrainingStep) -> Tensor:
    """Return the gradient of the head of a new model in a step with one regularizer."""
    model = make_model()
    [slope] = torch.autograd.grad(training_loss(regularizer, model, step), [model.head])
    return slope


def differences(one: Regularizer, other: Regularizer) -> list[str]:
    """Return the names of effects in which two regularizers differ in the same step."""
    return observe(one, make_step())[0].differences(observe(other, make_step())[0])


def assert_untouched(
    observation: Observation, outputs: Outputs, step: TrainingStep, when: str
) -> None:
    """Assert that a step is plain training."""
    weight = step.valid.float()
    embeddings = make_model().embedding(step.input_ids)
    mean, none = outputs.nll.mean(), torch.zeros(())
    plain = Observation(step.input_ids, embeddings, weight, outputs.nll, weight, mean, none)
    changed = observation.differences(plain)
    assert not changed, f"{when}: expected plain training bit by bit, got different {changed}"
