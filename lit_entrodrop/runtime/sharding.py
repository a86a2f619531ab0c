"""Shards of tensors."""

import torch
from torch import Tensor
from torch.distributed.tensor import DTensor


def local_shard(tensor: Tensor) -> Tensor:
    """Return the part of a tensor that is on this rank; all of a tensor that is not sharded."""
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor


def unsharded_shape(tensor: Tensor) -> torch.Size:
    """Return the shape of the whole tensor, sharded or not."""
    # ZeRO-3 leaves an empty tensor and notes the shape.
    shape: torch.Size = getattr(tensor, "ds_shape", tensor.shape)
    return shape
