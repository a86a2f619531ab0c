"""Checks of the regularizers, each of which runs alone in real training steps."""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache

from lit_entrodrop.doctor.check import Check, Theme, failed, passed, warned
from lit_entrodrop.doctor.live import Live
from lit_entrodrop.doctor.watching import Watched, strength, watching
from regularizers import Regularizer

WORDS = {
    "on_input_ids": "ids",
    "on_embeddings": "embeddings",
    "on_token_weight": "weights",
    "on_token_loss": "losses",
}
FAR = 0.25  # of the expected drop rate, beside four standard errors


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


def curricula(live: Live) -> Check:
    """Look for regularizers whose strength is 0 throughout."""
    strengths = {name: strength(regularizer) for name, regularizer in _named(live)}
    if not strengths:
        return passed("no regularizer is configured")
    idle = [name for name, (value, _) in strengths.items() if value == 0]
    if idle:
        return warned(
            f"the strength of {', '.join(idle)} is 0 for the whole run",
            "raise its curriculum, or leave the regularizer out",
        )
    told = (
        f"{name} reaches {value:.3g}" if value is not None else f"{name} has no curriculum"
        for name, (value, _) in strengths.items()
    )
    return passed(", ".join(told))


def masks_are_applied(live: Live) -> Check:
    """Look at what each regularizer changes in a training step at its full strength."""
    told, broken, idle = [], [], []
    for trial in _trials(live):
        told.append(trial.describe())
        reaches = not math.isclose(trial.loss, trial.plain, rel_tol=1e-6)
        if not math.isfinite(trial.loss):
            broken.append(f"{trial.name} makes the loss {trial.loss}")
        elif trial.changes and not reaches:
            broken.append(f"what {trial.name} changes does not reach the loss")
        elif not reaches:
            idle.append(trial.name)
    found = "; ".join([*told, *broken]) or "no regularizer is at work"
    if broken:
        return failed(found, "look at the hooks of the regularizer, and at the model's embeddings")
    if idle:
        return warned(
            f"{found}: {', '.join(idle)} changes nothing at the start of training",
            "look at its settings, and whether the model has what it works on, such as dropout",
        )
    return passed(found)


def drop_rates(live: Live) -> Check:
    """Compare the share of tokens that are dropped with what the settings promise."""
    told, far = [], []
    for trial in _trials(live):
        rate = trial.watched.metrics.get("drop_rate")
        if rate is None or trial.strength is None:
            continue
        expected = trial.strength * getattr(trial.regularizer, "quantile", 1.0)
        told.append(f"{trial.name} drops {rate:.1%} ({expected:.1%} expected)")
        draws = live.batch["input_ids"]
        # A word is dropped wherever it stands.
        by_word = getattr(trial.regularizer, "granularity", None) == "row"
        count = (draws.unique() if by_word else draws).numel()
        error = math.sqrt(max(expected * (1 - expected), 0.0) / count)
        if abs(rate - expected) > FAR * expected + 4 * error:
            far.append(trial.name)
    found = ", ".join(told) or "no regularizer tells a drop rate"
    if far:
        return warned(
            found,
            f"{', '.join(far)}: few tokens of short documents can be dropped, or entropies are "
            "unknown; compare methods by the drop rates in metrics.csv",
        )
    return passed(found)


def special_tokens_are_protected(live: Live) -> Check:
    """Look for special tokens and padding that a regularizer alters or counts."""
    wrong = [
        f"{trial.name} alters {WORDS[hook]} of {count:,} special, padding or uncounted tokens"
        for trial in _trials(live)
        for hook, count in trial.watched.protected_changes().items()
    ]
    if wrong:
        return failed("; ".join(wrong), "alter only step.alterable, and weigh only step.valid")
    return passed("ids and embeddings of special tokens and padding stay as they are")


def _named(live: Live) -> Iterator[tuple[str, Regularizer]]:
    regularizers = live.module.regularizers
    return zip(regularizers.names, regularizers.ordered, strict=True)


@lru_cache(maxsize=1)
def _trials(live: Live) -> list[Trial]:
    """Try each regularizer that is not idle."""
    trials = []
    tokens = live.batch["labels"].shape[1]
    for name, regularizer in _named(live):
        value, progress = strength(regularizer)
        if value == 0:
            continue
        losses, weights = [], []
        with watching(regularizer) as watched:
            for alone in ([], [regularizer]):
                live.module.step_weight.zero_()
                losses.append(live.loss(live.batch, alone, at=progress).item() * tokens)
                weights.append(live.module.step_weight.item())
        plain, loss = (of / max(over, 1e-8) for of, over in zip(losses, weights, strict=True))
        trials.append(Trial(name, regularizer, value, watched, loss, plain))
    return trials


REGULARIZERS = Theme(
    "regularizers", (curricula, masks_are_applied, drop_rates, special_tokens_are_protected)
)
