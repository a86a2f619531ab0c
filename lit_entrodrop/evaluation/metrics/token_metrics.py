"""Loss, perplexity and accuracy per token, overall and by entropy."""

from collections.abc import Sequence

import torch
from torch import Tensor
from torchmetrics import Metric

from lit_entrodrop.entropy.buckets import bucket_of

# Sums over millions of tokens; Apple's GPUs know no float64.
WIDEST = torch.float32 if torch.backends.mps.is_available() else torch.float64


class TokenMetrics(Metric):
    """Token-weighted loss (nats), perplexity and accuracy, over all tokens and by entropy bucket.

    Without reference entropies the buckets are left out.

    Args:
        buckets: names of the buckets, the lowest entropy first.

    >>> metrics = TokenMetrics(["low", "high"])
    >>> nll, correct, valid = torch.tensor([1.0, 3.0]), torch.tensor([True, False]), torch.ones(2)
    >>> metrics.update(nll, correct, valid.bool(), torch.tensor([0.5, 4.0]), torch.tensor([2.0]))
    >>> computed = metrics.compute()
    >>> [round(computed[name].item(), 3) for name in ("loss", "loss_high_entropy")]
    [2.0, 3.0]
    """

    full_state_update = False
    tokens: Tensor
    nll: Tensor
    correct: Tensor

    def __init__(self, buckets: Sequence[str]) -> None:
        super().__init__()
        # All tokens come first.
        self.suffixes = ["", *(f"_{name}_entropy" for name in buckets)]
        for name in ("tokens", "nll", "correct"):
            zeros = torch.zeros(len(self.suffixes), dtype=WIDEST)
            self.add_state(name, default=zeros, dist_reduce_fx="sum")

    def update(
        self,
        nll: Tensor,
        correct: Tensor,
        valid: Tensor,
        reference_entropy: Tensor | None = None,
        edges: Tensor | None = None,
    ) -> None:
        """Count the tokens of a batch.

        Args:
            nll: ``[B, T]`` nats, of a clean forward pass.
            correct: ``[B, T]`` bool, whether no word is likelier than the label.
            valid: ``[B, T]`` bool, tokens that count.
            reference_entropy: ``[B, T]`` nats, by the frozen scorer; NaN where unknown.
            edges: ``[buckets - 1]`` nats, between the buckets.
        """
        groups = [valid]
        if reference_entropy is not None and edges is not None:
            bucket = bucket_of(reference_entropy, edges)
            groups += [valid & (bucket == number) for number in range(len(self.suffixes) - 1)]
        nll = nll.to(WIDEST)
        for place, members in enumerate(groups):
            self.tokens[place] += members.sum()
            self.nll[place] += (nll * members).sum()
            self.correct[place] += (correct & members).sum()

    def compute(self) -> dict[str, Tensor]:
        """Return the metrics by name; NaN where no token was counted."""
        loss, accuracy = self.nll / self.tokens, self.correct / self.tokens
        bucketed = bool(self.tokens[1:].sum() > 0)
        results = {}
        for place, suffix in enumerate(self.suffixes if bucketed else [""]):
            results[f"loss{suffix}"] = loss[place].float()
            results[f"perplexity{suffix}"] = loss[place].exp().float()
            results[f"accuracy{suffix}"] = accuracy[place].float()
        return results
