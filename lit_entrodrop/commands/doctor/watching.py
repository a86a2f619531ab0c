"""What a regularizer receives and returns in a real training step."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from regularizers import Constant, Curriculum, Regularizer, TokenLoss, TrainingStep
from regularizers.base import curricula_of

HOOKS = ("on_input_ids", "on_embeddings", "on_token_weight", "on_token_loss", "on_loss")


@dataclass
class Watched:
    """The first call of each hook in a step.

    Args:
        calls: by hook, what came in, what went out, and the step, which holds the metrics.
    """

    calls: dict[str, tuple[Any, Any, TrainingStep]] = field(default_factory=dict)

    @property
    def changes(self) -> dict[str, Tensor]:
        """By hook, which tokens it has changed, ``[B, T]`` bool."""
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
    def penalty(self) -> float:
        """What is added to the mean loss."""
        if "on_loss" not in self.calls:
            return 0.0
        before, after, _ = self.calls["on_loss"]
        return float(after - before)

    @property
    def metrics(self) -> dict[str, float]:
        """What the regularizer logs."""
        found: dict[str, Tensor] = {}
        for _, _, step in self.calls.values():
            found.update(step.metrics)
        return {name: value.item() for name, value in found.items()}

    def protected_changes(self) -> dict[str, int]:
        """Count, by hook, the tokens that must not be altered and are.

        Special tokens and padding keep their ids and embeddings; what is not counted in the loss
        gets no weight.
        """
        found = {}
        for hook, changed in self.changes.items():
            _, after, step = self.calls[hook]
            if hook in ("on_input_ids", "on_embeddings"):
                wrong = changed & ~step.alterable
            else:
                weight = after.weight if isinstance(after, TokenLoss) else after
                wrong = (weight != 0) & ~step.valid
            if count := int(wrong.sum()):
                found[hook] = count
        return found


@contextmanager
def watching(regularizer: Regularizer) -> Iterator[Watched]:
    """Keep what each hook of a regularizer receives and returns, while the context lasts."""
    watched = Watched()
    for hook in HOOKS:
        setattr(regularizer, hook, _keeping(watched, hook, getattr(regularizer, hook)))
    try:
        yield watched
    finally:
        for hook in HOOKS:
            delattr(regularizer, hook)


def strength(regularizer: Regularizer) -> tuple[float | None, float]:
    """Return the strength at the end of training, and the progress at which it is reached.

    Where it is 0 at the end it is the largest of the run; None if there is no curriculum. Where
    evaluations drive it, it is the largest to which they can lead.

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


@contextmanager
def at_most(regularizer: Regularizer, progress: float) -> Iterator[None]:
    """Hold what evaluations drive at the largest strength to which they can lead it."""
    given = {
        name: curriculum
        for name, curriculum in vars(regularizer).items()
        if isinstance(curriculum, Curriculum)
    }
    for name, curriculum in given.items():
        setattr(regularizer, name, Constant(curriculum.at_most(progress)))
    try:
        yield
    finally:
        for name, curriculum in given.items():
            setattr(regularizer, name, curriculum)


def _keeping(watched: Watched, hook: str, method: Callable[..., Any]) -> Callable[..., Any]:
    def call(*arguments: Any) -> Any:
        returned = method(*arguments)
        kept = returned.detach() if isinstance(returned, Tensor) else returned
        before = arguments[0].detach() if isinstance(arguments[0], Tensor) else arguments[0]
        watched.calls.setdefault(hook, (before, kept, arguments[-1]))
        return returned

    return call
