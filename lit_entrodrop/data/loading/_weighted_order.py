"""Order of the blocks of a corpus with weights.

It is no value of `data.order`; the help lists the orders of modules without an underscore.
"""

from collections.abc import Mapping
from itertools import accumulate
from typing import Any

from numpy.typing import NDArray

from lit_entrodrop.data.loading.readings import cyclic_readings, interleave, weighted_counts
from lit_entrodrop.data.orders import BlockOrder, Epoch, Shuffled


class WeightedOrder(BlockOrder):
    """Read each source at its share of an epoch, evenly spaced.

    Each source has its own endless sequence of random permutations of its blocks. An epoch reads
    the next part. So over the epochs, all its blocks are read equally often, to within one.

    Args:
        num_blocks: Number of blocks of each source; blocks are numbered source after source.
        weights: Weight of each source, by name.

    >>> WeightedOrder([1, 3], {"exam": 3.0, "notes": 1.0}).counts
    [2, 2]
    """

    def __init__(self, num_blocks: list[int], weights: Mapping[str, float]) -> None:
        self.num_blocks = num_blocks
        self.weights = dict(weights)
        if missing := [name for name, n in zip(weights, num_blocks, strict=True) if not n]:
            raise ValueError(
                f"data.corpus: expected training documents of each source with a weight, got none "
                f"of {', '.join(missing)}: give it more documents, or raise data.max_train_tokens"
            )
        self._counts = weighted_counts(num_blocks, list(weights.values()))
        if unread := [name for name, n in zip(weights, self._counts, strict=True) if not n]:
            raise ValueError(
                "data.corpus: expected weights by which an epoch reads each source, got no block "
                f"of {', '.join(unread)}: raise its weight, or remove the source"
            )

    @property
    def repeats_blocks(self) -> bool:  # type: ignore[override]
        """Whether an epoch may read a block more than once; not with equal weights."""
        return self._counts != self.num_blocks

    @property
    def counts(self) -> list[int]:
        """Number of readings of each source in an epoch."""
        return self._counts

    def blocks(self, epoch: Epoch) -> NDArray[Any]:
        """Return the next readings of each source, evenly spaced."""
        firsts = [0, *accumulate(self.num_blocks)]
        return interleave(
            [
                first + cyclic_readings(size, epoch.number * count, count, [epoch.seed, number])
                for number, (first, size, count) in enumerate(
                    zip(firsts, self.num_blocks, self._counts, strict=False)
                )
            ]
        )


def check_weights(weights: Mapping[str, float], order: BlockOrder, repack: str = "never") -> None:
    """Raise a ValueError for weights with an order of their own, or with blocks of each epoch."""
    if not weights:
        return
    if type(order) is not Shuffled:
        raise ValueError(
            "data.order: expected the default order, because the weights of data.corpus decide "
            f"how often a block is read, got {type(order).__name__}: remove data.order or the "
            "weights"
        )
    if repack != "never":
        raise ValueError(
            "data.repack: expected never, because the weights of data.corpus count readings of a "
            f"block over epochs, got {repack}: set it to never, or remove the weights"
        )
