"""Real training steps under one regularizer each."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from lit_entrodrop.doctor.watching import Watched, at_most, strength, watching
from lit_entrodrop.module import LitCausalLM
from regularizers import Regularizer

if TYPE_CHECKING:
    from lit_entrodrop.doctor.live import Live

WORDS = {
    "on_input_ids": "ids",
    "on_embeddings": "embeddings",
    "on_token_weight": "weights",
    "on_token_loss": "losses",
}


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
    """

    name: str
    regularizer: Regularizer
    strength: float | None
    watched: Watched
    loss: float
    plain: float

    @property
    def changes(self) -> list[str]:
        """What it changes, and of which share of the tokens."""
        told = []
        for hook, changed in self.watched.changes.items():
            real = self.watched.calls[hook][2].document_ids >= 0
            if changed.any():
                told.append(f"{changed.sum() / real.sum():.1%} of {WORDS[hook]}")
        return told

    def describe(self) -> str:
        """Tell what it does."""
        value = 1.0 if self.strength is None else self.strength
        return (
            f"{self.name} at {value:.3g} changes {', '.join(self.changes) or 'no token'}, loss "
            f"{self.plain:.3f} -> {self.loss:.3f}"
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
    tokens = live.batch["labels"].shape[1]
    for name, regularizer in named(live.module):
        value, progress = strength(regularizer)
        if value == 0:
            continue
        losses, weights = [], []
        with at_most(regularizer, progress), watching(regularizer) as watched:
            for alone in ([], [regularizer]):
                live.module.step_weight.zero_()
                losses.append(live.loss(live.batch, alone, at=progress).item() * tokens)
                weights.append(live.module.step_weight.item())
        plain, loss = (of / max(over, 1e-8) for of, over in zip(losses, weights, strict=True))
        trials.append(Trial(name, regularizer, value, watched, loss, plain))
    return trials
