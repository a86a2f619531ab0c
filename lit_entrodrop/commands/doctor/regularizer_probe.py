"""Probe of regularizers: the effect of each one alone in a training step."""

import math
from collections.abc import Callable
from copy import deepcopy
from dataclasses import dataclass, replace
from functools import cached_property, partial
from typing import Any

import torch
from torch import Tensor

from lit_entrodrop.commands.doctor.model_probe import ModelProbe
from lit_entrodrop.training.optim.naming import named_parameters
from regularizers import (
    Constant,
    EmbeddingDropout,
    GeneralizedCrossEntropy,
    ParameterPart,
    Regularizer,
    TokenLoss,
    TrainingStep,
)
from regularizers.base import curricula_of

HOOK_TARGETS = {
    "on_input_ids": "ids",
    "on_embeddings": "embeddings",
    "on_token_weight": "weights",
    "on_token_loss": "losses",
}
# Input, output and step of a call; the step has the logged metrics.
HookCall = tuple[Any, Any, TrainingStep]
INPUT_HOOKS = ("on_input_ids", "on_embeddings", "on_token_weight")


@dataclass(frozen=True)
class RecordedHooks:
    """Calls of the hooks of one regularizer in one training step, by hook."""

    name: str
    calls: dict[str, HookCall]

    @property
    def changed_tokens(self) -> dict[str, Tensor]:
        """Tokens that each hook has changed, ``[B, T]`` bool, by hook."""
        found = {}
        for hook, (before, after, _) in self.calls.items():
            if hook == "on_loss":
                continue
            if isinstance(after, TokenLoss):
                found[hook] = (before.loss != after.loss) | (before.weight != after.weight)
            else:
                changed = before != after
                found[hook] = changed if changed.dim() == 2 else changed.any(-1)
        return found

    @property
    def changes(self) -> list[str]:
        """Parts of the step that it changes, with the share of tokens changed."""
        shares = []
        for hook, changed in self.changed_tokens.items():
            real = self.calls[hook][2].document_ids >= 0
            if changed.any():
                shares.append(f"{changed.sum() / real.sum():.1%} of {HOOK_TARGETS[hook]}")
        return shares

    @property
    def metrics(self) -> dict[str, float]:
        """Metrics that the regularizer has logged."""
        logged = (step.metrics.items() for _, _, step in self.calls.values())
        return {name: value.item() for items in logged for name, value in items}


@dataclass(frozen=True)
class RegularizerEffect(RecordedHooks):
    """Effect of one regularizer in one training step; losses are in nats per token.

    Args:
        acts_later: Whether it has an effect on the longest document, once the model differs from
            its reference and evaluations show overfitting; None if it has an effect at once.
    """

    regularizer: Regularizer
    strength: float | None  # None without a curriculum
    loss: float
    plain_loss: float
    acts_later: bool | None = None

    @property
    def changes_inputs(self) -> bool:
        """Whether it changes anything before the forward pass."""
        changed = self.changed_tokens.items()
        return any(bool(tokens.any()) for hook, tokens in changed if hook in INPUT_HOOKS)

    @property
    def changes_loss(self) -> bool:
        """Whether it changes the loss of the step."""
        return differ(self.loss, self.plain_loss)

    def protected_changes(self) -> dict[str, int]:
        """Count the tokens that a hook altered or weighted although they are protected, by hook.

        Ids and embeddings of special tokens and padding are protected; tokens outside of the loss
        must have weight 0.
        """
        found = {}
        for hook, changed in self.changed_tokens.items():
            _, after, step = self.calls[hook]
            if hook in ("on_input_ids", "on_embeddings"):
                wrong = changed & ~step.alterable
            else:
                weight = after.weight if isinstance(after, TokenLoss) else after
                wrong = (weight != 0) & ~step.valid
            if count := int(wrong.sum()):
                found[hook] = count
        return found

    def describe(self) -> str:
        """Return its effect in one line."""
        value = 1.0 if self.strength is None else self.strength
        later = "; it acts once the model has trained, or on longer documents"
        return (
            f"{self.name} at {value:.3g} changes {', '.join(self.changes) or 'no token'}, loss "
            f"{self.plain_loss:.3f} -> {self.loss:.3f}{later if self.acts_later else ''}"
        )


class RegularizerProbe:
    """Effects of the regularizers of a run on its model."""

    def __init__(self, model: ModelProbe) -> None:
        self.model = model

    @cached_property
    def effects(self) -> list[RegularizerEffect]:
        """Effect of each regularizer alone, at its full strength; those of strength 0 have none."""
        model, found = self.model, []
        for name, regularizer in model.regularizers.items():
            value, progress = strength(regularizer)
            if value == 0:
                continue
            strongest = at_strongest(regularizer, progress)
            recorded, calls = recording_copy(strongest)
            plain = model.mean_loss(model.batch, [], progress)
            loss = model.mean_loss(model.batch, [recorded], progress)
            effect = RegularizerEffect(name, calls, regularizer, value, loss, plain)
            if not effect.changes and not effect.changes_loss:
                effect = replace(effect, acts_later=self._acts_later(strongest, progress))
            found.append(effect)
        return found

    def _acts_later(self, regularizer: Regularizer, progress: float) -> bool:
        if self._penalizes_parameters(regularizer, progress):
            return True
        # Before training, a model equals its reference and teacher, and nothing is evaluated yet.
        overfitting = deepcopy(regularizer)
        for _ in range(2):
            vocabulary_size = self.model.module.vocabulary.size
            overfitting.on_evaluation({"val/loss": 2 * math.log(vocabulary_size)})
        # A bound acts only on a loss below that of the teacher; a bounded cross-entropy is lower.
        batch, changes = self.model.longest, [EmbeddingDropout(0.3), GeneralizedCrossEntropy()]
        plain = self.model.mean_loss(batch, changes, progress)
        return differ(plain, self.model.mean_loss(batch, [*changes, overfitting], progress))

    def _penalizes_parameters(self, regularizer: Regularizer, progress: float) -> bool:
        names = (each.names[0] for each in named_parameters(self.model.module.causal_lm))
        parts = (ParameterPart(name, torch.ones(1), torch.zeros(1)) for name in names)
        penalties = (regularizer.on_parameter(part, progress) for part in parts)
        return any(penalty is not None and bool(penalty != 0) for penalty in penalties)


def differ(loss: float, other: float) -> bool:
    """Return whether two losses differ by more than rounding."""
    return not math.isclose(loss, other, rel_tol=1e-6)


def strength(regularizer: Regularizer) -> tuple[float | None, float]:
    """Return the strength at the end of training, and the progress at which it is reached.

    If it is 0 at the end, return the largest strength of the run; None without a curriculum. For a
    curriculum that evaluations drive, this is the largest strength that they can set.

    >>> from regularizers import EmbeddingDropout, Linear
    >>> strength(EmbeddingDropout(Linear(start=0.4, end=0.0)))
    (0.4, 0.0)
    """
    curricula = curricula_of(regularizer).values()
    if not curricula:
        return None, 1.0
    points = [1.0, *(percent / 100 for percent in range(100))]
    strengths = [max(curriculum.at_most(point) for curriculum in curricula) for point in points]
    if strengths[0] > 0:
        return strengths[0], 1.0
    largest = max(strengths)
    return largest, points[strengths.index(largest)]


def at_strongest(regularizer: Regularizer, progress: float) -> Regularizer:
    """Return a copy whose curricula are constant, at their largest strength for a progress."""
    copied = deepcopy(regularizer)
    for name, curriculum in curricula_of(regularizer).items():
        delattr(copied, name)
        setattr(copied, name, Constant(curriculum.at_most(progress)))
    return copied


def recording_copy(regularizer: Regularizer) -> tuple[Regularizer, dict[str, HookCall]]:
    """Return a copy of a regularizer that records the first call of each hook, and the calls."""
    copied, calls = deepcopy(regularizer), dict[str, HookCall]()

    def record(hook: str, method: Callable[..., Any], *arguments: Any) -> Any:
        returned = method(*arguments)
        before, after = (
            each.detach() if isinstance(each, Tensor) else each for each in (arguments[0], returned)
        )
        calls.setdefault(hook, (before, after, arguments[-1]))
        return returned

    for hook in (*HOOK_TARGETS, "on_loss"):
        setattr(copied, hook, partial(record, hook, getattr(copied, hook)))
    return copied, calls
