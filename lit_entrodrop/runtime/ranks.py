"""Communication between the ranks of a run; a single process is its only rank."""

from collections.abc import Iterator
from typing import Any, NamedTuple, TypeVar

import lightning as L
import numpy as np
import torch
import torch.distributed as dist
from numpy.typing import NDArray
from torch import Tensor

SLAB = 2**22

T = TypeVar("T")


class DataRank(NamedTuple):
    """A data-parallel rank; the ranks of a tensor-parallel group share one.

    Attributes:
        size: Number of data-parallel ranks.
        rank: Index of this rank, from 0.
        first: Whether this process is the first of its tensor-parallel group.
    """

    size: int
    rank: int
    first: bool


def data_rank(trainer: L.Trainer | None) -> DataRank:
    """Return the data-parallel rank of this process, as Lightning's samplers count."""
    ranks = trainer.distributed_sampler_kwargs if trainer else None
    if not (trainer and ranks):
        return DataRank(1, 0, True)
    # Neighboring ranks form a group.
    group = trainer.world_size // ranks["num_replicas"]
    return DataRank(ranks["num_replicas"], ranks["rank"], trainer.global_rank % group == 0)


def is_first() -> bool:
    """Return whether this is the first rank, which writes shared files."""
    return not _several() or dist.get_rank() == 0


def all_agree(condition: bool) -> bool:
    """Return whether a condition is true on every rank; call it on every rank."""
    flag = torch.tensor([int(condition)])
    return bool(_reduced(flag, dist.ReduceOp.MIN).item()) if _several() else condition


def wait_for_all() -> None:
    """Wait until every rank has called this function."""
    all_agree(True)


def gather(value: Any) -> list[Any]:
    """Return the values of all ranks, by rank; call it on every rank."""
    values: list[Any] = [value]
    if _several():
        values *= dist.get_world_size()
        dist.all_gather_object(values, value)
    return values


def of_group(value: T, ranks: DataRank) -> T:
    """Return the value of the first rank of this rank's tensor-parallel group.

    Call it on every rank. Without tensor parallelism, each rank is a group.
    """
    if not _several() or dist.get_world_size() == ranks.size:
        return value
    values: list[T] = gather(value)
    return values[ranks.rank * (len(values) // ranks.size)]


def gather_rows(rows: Tensor, trainer: L.Trainer) -> Tensor:
    """Return the rows ``[n, ...]`` of all data-parallel ranks, by rank, without gradient.

    Every rank must call this with the same number of rows.
    """
    rows = rows.detach()
    if not _several():
        return rows
    parts = [torch.empty_like(rows) for _ in range(dist.get_world_size())]
    dist.all_gather(parts, rows.contiguous())
    # Neighboring ranks form a group, which shares a batch.
    return torch.cat(parts[:: len(parts) // data_rank(trainer).size])


def exchange_rows(
    values: NDArray[np.float16], fresh: NDArray[np.bool_]
) -> Iterator[tuple[Tensor, Tensor]]:
    """Exchange changed rows between ranks.

    Memory is bounded, and only changed rows are sent. Every rank must exhaust the iterator.

    Args:
        values: Array ``[N, T]`` fp16.
        fresh: Mask ``[N]`` of the rows that this rank has changed.

    Yields:
        Indices of rows ``[R]`` int64 and their values ``[R, T]`` fp16, the same on every rank. If
        several ranks changed a row, the elementwise maximum of the numbers; NaN if there is none.
    """
    if not _several():
        return
    anywhere = _reduced(torch.from_numpy(fresh.astype(np.int32)), dist.ReduceOp.MAX)
    changed = anywhere.nonzero().flatten()
    for rows in changed.split(max(1, SLAB // values.shape[1])) if len(changed) else ():
        chosen = rows.numpy()
        # As integers, positive fp16 keep their order; NCCL cannot reduce int16.
        own = values[chosen]
        bits = own.view(np.uint16).astype(np.int32)
        bits[~fresh[chosen, None] | np.isnan(own)] = -1
        merged = _reduced(torch.from_numpy(bits), dist.ReduceOp.MAX).numpy()
        numbers = merged.astype(np.uint16).view(np.float16)
        yield rows, torch.from_numpy(np.where(merged < 0, np.float16(np.nan), numbers))


def latest(
    values: NDArray[np.float32], when: NDArray[np.int64]
) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Return the values written last by any rank, and their times; call it on every rank.

    Args:
        values: Array ``[N]`` fp32. The largest of several values of the same time is returned.
        when: Time ``[N]`` at which this rank wrote each value, on a clock shared by all ranks.
    """
    if not _several():
        return values, when
    newest = _reduced(torch.from_numpy(when), dist.ReduceOp.MAX).numpy()
    candidates = np.where(when == newest, values, -np.inf).astype(np.float32)
    return _reduced(torch.from_numpy(candidates), dist.ReduceOp.MAX).numpy(), newest


def _several() -> bool:
    return dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1


def _reduced(tensor: Tensor, operation: "dist.ReduceOp.RedOpType") -> Tensor:
    on_device = tensor.to(_device(), copy=True)
    dist.all_reduce(on_device, operation)
    return on_device.cpu()


def _device() -> torch.device:
    if "gloo" in dist.get_backend():
        return torch.device("cpu")
    return torch.accelerator.current_accelerator() or torch.device("cpu")
