"""Statistics over ranks: two ranks with half a batch each equal one rank with all of it."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from torch import Tensor

from regularizers import Regularizers, TrainingStep
from regularizers.loss_reweighting import LossReweighting
from regularizers.testing import ToyLM, make_step
from regularizers.testing.steps import slice_rows
from regularizers.testing.toy import first_forward, provide
from tests.helpers.processes import run_ranks


def gather(tensor: Tensor) -> Tensor:
    parts = [torch.empty_like(tensor) for _ in range(dist.get_world_size())]
    dist.all_gather(parts, tensor)
    return torch.cat(parts)


def sums(step: TrainingStep) -> Tensor:
    """Return the summed loss, the summed weight, and the gradient of the summed loss."""
    model, regularizers = ToyLM(), Regularizers([LossReweighting()])
    step = provide(model, regularizers, step)
    loss, weight = regularizers.reduce(first_forward(model, regularizers, step), step)
    loss.backward()
    assert model.head.grad is not None
    return torch.cat([torch.stack([loss.detach(), weight]), model.head.grad.flatten()])


def check_halves(rank: int, real_rows: int) -> None:
    document_ids = make_step(rows=4).document_ids.clone()
    document_ids[real_rows:] = -1
    whole = make_step(rows=4, document_ids=document_ids)
    half = slice_rows(whole, slice(2 * rank, 2 * rank + 2))
    total, alone = sums(replace(half, gather=gather)), sums(half)
    dist.all_reduce(total)
    dist.all_reduce(alone)
    torch.testing.assert_close(total, sums(whole), rtol=1e-6, atol=1e-6)
    # Statistics of each rank alone give another result.
    assert ((total - alone).abs().max() > 1e-2) == (real_rows > 2)


@pytest.mark.parametrize("real_rows", [4, 3, 2, 0])
def test_two_halves_are_one_batch(real_rows: int, tmp_path: Path) -> None:
    run_ranks(check_halves, tmp_path, real_rows)
