"""Records of what the hooks of a regularizer receive and return in a training step."""

from collections.abc import Callable
from copy import deepcopy
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from regularizers import Regularizer, TokenLoss, TrainingStep

HOOKS = ("on_input_ids", "on_embeddings", "on_token_weight", "on_token_loss", "on_loss")


@dataclass
class HookRecords:
    """Input, output and step (which has the logged metrics) of each hook's first call."""

    calls: dict[str, tuple[Any, Any, TrainingStep]] = field(default_factory=dict)

    @property
    def changes(self) -> dict[str, Tensor]:
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
    def metrics(self) -> dict[str, float]:
        """Metrics that the regularizer has logged."""
        found: dict[str, Tensor] = {}
        for _, _, step in self.calls.values():
            found.update(step.metrics)
        return {name: value.item() for name, value in found.items()}

    def protected_changes(self) -> dict[str, int]:
        """Count the tokens that a hook altered or weighted although they are protected, by hook.

        Ids and embeddings of special tokens and padding are protected; tokens outside of the loss
        must have weight 0.
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


def recording_copy(regularizer: Regularizer) -> tuple[Regularizer, HookRecords]:
    """Return a copy of a regularizer that records its hooks, and the records."""
    copied, records = deepcopy(regularizer), HookRecords()
    for hook in HOOKS:
        setattr(copied, hook, _recording(records, hook, getattr(copied, hook)))
    return copied, records


def _recording(records: HookRecords, hook: str, method: Callable[..., Any]) -> Callable[..., Any]:
    def call(*arguments: Any) -> Any:
        returned = method(*arguments)
        before, after = (
            each.detach() if isinstance(each, Tensor) else each for each in (arguments[0], returned)
        )
        records.calls.setdefault(hook, (before, after, arguments[-1]))
        return returned

    return call
