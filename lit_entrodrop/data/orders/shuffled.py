"""Default order: each epoch reads every block once, shuffled."""

from typing import Any

import torch
from numpy.typing import NDArray

from lit_entrodrop.data.orders.base import BlockOrder, Epoch


class Shuffled(BlockOrder):
    """Read each block once an epoch, reshuffled in each epoch.

    >>> import numpy as np
    >>> Shuffled().blocks(Epoch(0, 1, seed=0, losses=np.ones(3, np.float32)))
    array([2, 0, 1])
    """

    def blocks(self, epoch: Epoch) -> NDArray[Any]:
        """Return the permutation of torch's DistributedSampler, which depends on (seed, epoch)."""
        return torch.randperm(epoch.num_blocks, generator=epoch.generator()).numpy()
