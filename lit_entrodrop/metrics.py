"""Loss, perplexity and accuracy per token, overall and by entropy."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torchmetrics import Metric

from regularizers import Outputs

# Sums over millions of tokens; Apple's GPUs know no float64.
WIDEST = torch.float32 if torch.backends.mps.is_available() else torch.float64


class TokenMetrics(Metric):
    """Token-weighted loss (nats), perplexity and accuracy, and the loss of tokens by entropy.

    Low-entropy tokens are those whose reference entropy is at most ``threshold``; both groups stay
    fixed while the model changes, so that their losses compare over a run. Without reference
    entropies the two losses are left out.

    >>> metrics = TokenMetrics()
    >>> one = torch.ones(1, 2)
    >>> metrics.update(Outputs(one, one, one, one, one.bool()), one.bool())
    >>> {name: round(value.item(), 3) for name, value in metrics.compute().items()}
    {'loss': 1.0, 'perplexity': 2.718, 'accuracy': 1.0}
    """

    full_state_update = False
    tokens: Tensor
    nll: Tensor
    correct: Tensor
    group_tokens: Tensor
    group_nll: Tensor

    def __init__(self) -> None:
        super().__init__()
        for name, shape in (
            ("tokens", ()),
            ("nll", ()),
            ("correct", ()),
            ("group_tokens", (2,)),
            ("group_nll", (2,)),
        ):
            zeros = torch.zeros(shape, dtype=WIDEST)
            self.add_state(name, default=zeros, dist_reduce_fx="sum")

    def update(
        self,
        outputs: Outputs,
        valid: Tensor,
        reference_entropy: Tensor | None = None,
        threshold: float = 0.0,
    ) -> None:
        """Count the tokens of a batch.

        Args:
            outputs: of a clean forward pass, ``[B, T]``.
            valid: ``[B, T]`` bool, tokens that count.
            reference_entropy: ``[B, T]`` nats, by the frozen scorer.
            threshold: highest entropy of a low-entropy token, nats.
        """
        nll = outputs.nll.to(WIDEST)
        self.tokens += valid.sum()
        self.nll += (nll * valid).sum()
        self.correct += (outputs.correct & valid).sum()
        if reference_entropy is None:
            return
        low = reference_entropy <= threshold
        for group, members in enumerate((low & valid, ~low & valid)):
            self.group_tokens[group] += members.sum()
            self.group_nll[group] += (nll * members).sum()

    def compute(self) -> dict[str, Tensor]:
        """Return the metrics by name; NaN where no token was counted."""
        loss = self.nll / self.tokens
        results = {"loss": loss, "perplexity": loss.exp(), "accuracy": self.correct / self.tokens}
        if self.group_tokens.sum() > 0:
            low, high = self.group_nll / self.group_tokens
            results |= {"loss_low_entropy": low, "loss_high_entropy": high}
        return {name: value.float() for name, value in results.items()}


class WeightedMeans:
    """Weighted means of named scalars, which cost nothing until they are read.

    >>> means = WeightedMeans()
    >>> means.add("loss", torch.tensor(1.0), torch.tensor(1.0))
    >>> means.add("loss", torch.tensor(6.0), torch.tensor(3.0))
    >>> means.pop(lambda sums: sums)
    {'loss': 1.75}
    """

    def __init__(self) -> None:
        self._seen: dict[str, list[tuple[Tensor, Tensor]]] = {}

    def __bool__(self) -> bool:
        """Tell whether anything was added."""
        return bool(self._seen)

    def add(self, name: str, total: Tensor, weight: Tensor) -> None:
        """Remember a weighted sum and its weight, two scalars."""
        self._seen.setdefault(name, []).append((total, weight))

    def state_dict(self) -> dict[str, Tensor]:
        """Return what was added, by name: sums and weights ``[N, 2]``, in the order of adding."""
        return {
            name: torch.stack([torch.stack([total, weight.to(total)]) for total, weight in pairs])
            for name, pairs in self._seen.items()
        }

    def load_state_dict(self, state_dict: dict[str, Tensor]) -> None:
        """Take over what was added."""
        for name, pairs in state_dict.items():
            for total, weight in pairs:
                self.add(name, total, weight)

    def pop(self, reduce_sum: Callable[[Tensor], Any]) -> dict[str, float]:
        """Return the means and start again.

        Args:
            reduce_sum: sums a tensor over ranks.
        """
        sums = reduce_sum(torch.stack([_sums(pairs) for pairs in self._seen.values()]))
        values = (sums[:, 0] / sums[:, 1]).tolist()
        means = dict(zip(self._seen, values, strict=True))
        self._seen.clear()
        return means


def _sums(pairs: list[tuple[Tensor, Tensor]]) -> Tensor:
    device = pairs[0][1].device
    columns = (
        torch.stack([scalar.to(device) for scalar in each]) for each in zip(*pairs, strict=True)
    )
    return torch.stack([column.sum() for column in columns])
