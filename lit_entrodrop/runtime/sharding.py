"""What is known of a tensor of which a rank holds only a shard."""

import torch
from torch import Tensor
from torch.distributed.tensor import DTensor


def local_shard(tensor: Tensor) -> Tensor:
    """Return what this rank holds of a tensor.

    >>> local_shard(torch.ones(1))
    tensor([1.])
    """
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor


def unsharded_shape(tensor: Tensor) -> torch.Size:
    """Return the shape of a tensor as it is in the model, whatever this rank holds of it.

    >>> unsharded_shape(torch.zeros(2, 3))
    torch.Size([2, 3])
    """
    # ZeRO-3 and FSDP1 leave a flat shard, and FSDP1 strategies note the shape that it had.
    shape: torch.Size = getattr(tensor, "ds_shape", getattr(tensor, "whole_shape", tensor.shape))
    return shape
