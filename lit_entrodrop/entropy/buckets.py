"""Groups of tokens by entropy, fixed for a whole run."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor

from lit_entrodrop.data.packing.blocks import PackedBlocks
from lit_entrodrop.entropy.store import EntropyStore

NAMES = {2: ("low", "high"), 3: ("low", "mid", "high")}


@dataclass(frozen=True)
class EntropyBuckets:
    """Token groups, by entropy under the initial model on clean text.

    A token stays in its bucket while the model changes.

    Args:
        quantiles: Boundaries as increasing quantiles over the validation labels, in (0, 1).
        edges: Boundaries as increasing entropies in nats; None to use the quantiles.

    Raises:
        ValueError: If the boundaries do not increase or are out of range.

    >>> EntropyBuckets().names, EntropyBuckets(edges=[1.0]).names
    (('low', 'mid', 'high'), ('low', 'high'))
    """

    quantiles: Sequence[float] = (1 / 3, 2 / 3)
    edges: Sequence[float] | None = None

    def __post_init__(self) -> None:
        name, cuts = ("quantiles", self.quantiles) if self.edges is None else ("edges", self.edges)
        highest = 1 if self.edges is None else float("inf")
        within = all(0 < cut < highest for cut in cuts)
        if not cuts or not within or not all(a < b for a, b in pairwise(cuts)):
            raise ValueError(
                f"entropy_buckets.{name}: expected increasing numbers above 0 and below {highest}, "
                f"got {list(cuts)}: set e.g. {[1 / 3, 2 / 3] if highest == 1 else [0.5, 2.0]}"
            )

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the buckets, from low to high entropy."""
        count = 1 + len(self.quantiles if self.edges is None else self.edges)
        return NAMES.get(count, tuple(f"bucket_{number}" for number in range(1, count + 1)))

    def edges_in(self, store: EntropyStore, blocks: PackedBlocks) -> Tensor:
        """Return the edges in nats, [buckets - 1] fp32; a token on an edge is below it.

        Args:
            store: Entropies of the validation tokens.
            blocks: The validation blocks; only their labels determine quantiles.
        """
        if self.edges is not None:
            return torch.tensor(self.edges)
        return store.quantiles_at(self.quantiles, blocks.label_mask)


def bucket_of(entropy: Tensor, edges: Tensor) -> Tensor:
    """Return the bucket of each token, int64 of the same shape; -1 where there is no entropy.

    Args:
        entropy: Entropies in nats; NaN where unknown.
        edges: Increasing edges in nats, [buckets - 1].

    >>> bucket_of(torch.tensor([0.5, 1.0, 1.5, torch.nan]), torch.tensor([1.0])).tolist()
    [0, 0, 1, -1]
    """
    return torch.bucketize(entropy, edges).masked_fill(entropy.isnan(), -1)
