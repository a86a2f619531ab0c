"""Real training steps under one regularizer each."""

import math
from collections.abc import Iterator, Sequence
from copy import deepcopy
from dataclasses import dataclass
from typing import TYPE_CHECKING

from lit_entrodrop.commands.doctor.watching import Watched, at_most, strength, watching
from lit_entrodrop.model.clean_pass import Batch
from lit_entrodrop.training.module import LitCausalLM
from regularizers import EmbeddingDropout, Regularizer

if TYPE_CHECKING:
    from lit_entrodrop.commands.doctor.model_probe import Live

WORDS = {
    "on_input_ids": "ids",
    "on_embeddings": "embeddings",
    "on_token_weight": "weights",
    "on_token_loss": "losses",
}

BEFORE = ("on_input_ids", "on_embeddings", "on_token_weight")


@dataclass(frozen=True)
class Trial:
    """One regularizer in one training step.

    Args:
        name: of the regularizer.
        regularizer: itself.
        strength: of its curriculum; None if it has none.
        watched: what its hooks did.
        loss: of the step, in nats a token.
        plain: that of the same step without it.
        later: whether it changes the loss of a model that differs from what it is compared with, on
            the longest document, after evaluations that tell of overfitting; None if it does at
            once.
    """

    name: str
    regularizer: Regularizer
    strength: float | None
    watched: Watched
    loss: float
    plain: float
    later: bool | None = None

    @property
    def changes(self) -> list[str]:
        """What it changes, and of which share of the tokens."""
        told = []
        for hook, changed in self.watched.changes.items():
            real = self.watched.calls[hook][2].document_ids >= 0
            if changed.any():
                told.append(f"{changed.sum() / real.sum():.1%} of {WORDS[hook]}")
        return told

    @property
    def changes_inputs(self) -> bool:
        """Whether it changes anything before the forward pass."""
        changed = self.watched.changes.items()
        return any(bool(tokens.any()) for hook, tokens in changed if hook in BEFORE)

    def describe(self) -> str:
        """Tell what it does."""
        value = 1.0 if self.strength is None else self.strength
        yet = "; it will once the model has trained, or on longer documents" if self.later else ""
        return (
            f"{self.name} at {value:.3g} changes {', '.join(self.changes) or 'no token'}, loss "
            f"{self.plain:.3f} -> {self.loss:.3f}{yet}"
        )


def named(module: LitCausalLM) -> Iterator[tuple[str, Regularizer]]:
    """Return the regularizers of a module, each after its name."""
    return zip(module.regularizers.names, module.regularizers.ordered, strict=True)


def try_each(live: "Live") -> list[Trial]:
    """Run a training step under each regularizer alone, at its full strength, and one without.

    Args:
        live: whose regularizers they are; those of no strength are left out.
    """
    trials = []
    for name, regularizer in named(live.module):
        value, progress = strength(regularizer)
        if value == 0:
            continue
        with at_most(regularizer, progress):
            with watching(regularizer) as watched:
                plain, loss = _losses(live, live.batch, progress, [], [regularizer])
            changes = bool(Trial(name, regularizer, value, watched, loss, plain).changes)
            idle = not changes and not differ(loss, plain)
            later = _acts_later(live, regularizer, progress) if idle else None
        trials.append(Trial(name, regularizer, value, watched, loss, plain, later))
    return trials


def differ(loss: float, plain: float) -> bool:
    """Tell whether a loss differs from another by more than rounding."""
    return not math.isclose(loss, plain, rel_tol=1e-6)


def _acts_later(live: "Live", regularizer: Regularizer, progress: float) -> bool:
    # At the start a model is its own reference and teacher, and no evaluation has been told.
    told = deepcopy(regularizer)
    for _ in range(2):
        told.on_evaluation({"val/loss": 2 * math.log(live.module.vocabulary.size)})
    noise = EmbeddingDropout(0.3)
    return differ(*_losses(live, live.longest, progress, [noise], [noise, told]))


def _losses(
    live: "Live", batch: Batch, progress: float, *companies: Sequence[Regularizer]
) -> tuple[float, ...]:
    """Return the loss of one step under some regularizers, and under others, in nats a token."""
    found = []
    for regularizers in companies:
        live.module.step_weight.zero_()
        loss = live.loss(batch, regularizers, at=progress).item() * batch["labels"].shape[1]
        found.append(loss / max(live.module.step_weight.item(), 1e-8))
    return tuple(found)
