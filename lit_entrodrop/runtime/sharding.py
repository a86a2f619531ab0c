"""Local shards and full shapes of distributed tensors."""

import torch
from torch import Tensor
from torch.distributed.tensor import DTensor


def local_shard(tensor: Tensor) -> Tensor:
    """Return the shard of a tensor on this rank, or the whole tensor if it is not sharded."""
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor


def unsharded_shape(tensor: Tensor) -> torch.Size:
    """Return the shape of the whole tensor, sharded or not."""
    # ZeRO-3 replaces the tensor by an empty one and stores the shape as an attribute.
    shape: torch.Size = getattr(tensor, "ds_shape", tensor.shape)
    return shape
