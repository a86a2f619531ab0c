"""FSDP2 and ZeRO-3 on two ranks: the head's weight is gathered once per pass, not per chunk."""

import os
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor.debug import CommDebugMode

from lit_entrodrop.model.causal_lm import CausalLM
from regularizers import Requirements
from regularizers.functional import document_positions
from tests.helpers.llama import make_llama
from tests.helpers.processes import run_ranks

DOCUMENT_IDS = torch.tensor([[0] * 7 + [1] * 5, [0] + [1] * 11])


def batch_of(rank: int) -> dict[str, Tensor]:
    ids = torch.randint(2, 64, (2, 12), generator=torch.Generator().manual_seed(rank))
    return {
        "input_ids": ids,
        "labels": ids,
        "position_ids": document_positions(DOCUMENT_IDS),
        "document_ids": DOCUMENT_IDS,
    }


def loss_of(model: CausalLM, rank: int, beforehand: bool) -> Tensor:
    outputs = model(**batch_of(rank), token_weight=torch.ones(2, 12) if beforehand else None)
    loss: Tensor = outputs.weighted_loss if beforehand else outputs.nll.sum()
    return loss


def compare_with_one_process(
    rank: int, own_unit: bool, tied: bool, beforehand: bool, results: Any
) -> None:
    torch.set_num_threads(1)
    whole, sharded = (CausalLM(make_llama(tied=tied), "torch") for _ in range(2))
    sum(loss_of(whole, other, beforehand) for other in range(2)).backward()  # type: ignore[union-attr]
    mesh = init_device_mesh("cpu", (2,))
    units = list(sharded.hf_model.model.layers)
    if own_unit:
        units.append(sharded.hf_model.lm_head)
    for unit in (*units, sharded):
        fully_shard(unit, mesh=mesh, reshard_after_forward=True)
    gathered = []
    for chunk_rows in (24, 4):
        sharded.zero_grad()
        sharded.head_chunk_size = chunk_rows
        with CommDebugMode() as communication:
            loss_of(sharded, rank, beforehand).backward()
        gathered.append(communication.get_total_counts())
    assert gathered[0] == gathered[1], "one gather for all chunks"
    for expected, actual in zip(whole.parameters(), sharded.parameters(), strict=True):
        gradient = actual.grad.full_tensor()  # type: ignore[union-attr]
        # FSDP averages over ranks.
        torch.testing.assert_close(2 * gradient, expected.grad)


def compare_divergence_with_one_process(rank: int, own_unit: bool) -> None:
    torch.set_num_threads(1)
    whole, sharded = (CausalLM(make_llama(), "torch") for _ in range(2))
    mesh = init_device_mesh("cpu", (2,))
    if own_unit:
        fully_shard(sharded.hf_model.lm_head, mesh=mesh)
    fully_shard(sharded, mesh=mesh)
    for loss in (divergence_of, paired_loss_of):
        whole.zero_grad(), sharded.zero_grad()
        sum(loss(whole, other) for other in range(2)).backward()  # type: ignore[union-attr]
        loss(sharded, rank).backward()
        for expected, actual in zip(whole.parameters(), sharded.parameters(), strict=True):
            gradient = actual.grad.full_tensor()  # type: ignore[union-attr]
            torch.testing.assert_close(2 * gradient, expected.grad)


def divergence_of(model: CausalLM, rank: int) -> Tensor:
    required = Requirements(divergence=True)
    clean = model(**batch_of(rank), required=required)
    other = model(**batch_of(rank), perturb=lambda e: 2 * e, required=required)
    return torch.stack(clean.kl_divergences(other)).sum()


def paired_loss_of(model: CausalLM, rank: int) -> Tensor:
    batch = batch_of(rank)
    clean = model(**batch, without_head=True)
    other = model(**batch, perturb=lambda e: 2 * e, without_head=True)
    rows = clean.paired_loss(
        other,
        batch["labels"].flatten(),
        lambda _, own, second, both: (own.nll + second.nll + both[0] + both[1]).sum(),
    )
    loss: Tensor = rows.weighted_loss
    return loss


@pytest.mark.parametrize("own_unit", [False, True])
def test_divergence_of_sharded_heads_equals_one_process(tmp_path: Path, own_unit: bool) -> None:
    run_ranks(compare_divergence_with_one_process, tmp_path, own_unit)


@pytest.mark.parametrize("beforehand", [True, False])
@pytest.mark.parametrize(("own_unit", "tied"), [(False, False), (True, False), (False, True)])
def test_sharded_head_equals_one_process(
    tmp_path: Path, own_unit: bool, tied: bool, beforehand: bool
) -> None:
    run_ranks(compare_with_one_process, tmp_path, own_unit, tied, beforehand, None)


def compare_zero3_with_one_process(rank: int, tied: bool, beforehand: bool) -> None:
    torch.set_num_threads(1)
    os.environ |= {"DS_ACCELERATOR": "cpu", "LOCAL_RANK": str(rank)}
    import deepspeed

    # Compiling it takes minutes, and gloo can exchange the same data.
    deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False
    deepspeed.init_distributed("gloo", auto_mpi_discovery=False, verbose=False)
    whole, sharded = (CausalLM(make_llama(tied=tied), "torch") for _ in range(2))
    sum(loss_of(whole, other, beforehand) for other in range(2)).backward()  # type: ignore[union-attr]
    # The weights do not change, so all passes are comparable.
    optimizer = torch.optim.SGD(sharded.parameters(), lr=0.0)
    zero = {"stage": 3, "stage3_param_persistence_threshold": 0}
    config = {
        "train_micro_batch_size_per_gpu": 1,
        "zero_optimization": zero,
        "zero_allow_untested_optimizer": True,
    }
    engine = deepspeed.initialize(model=sharded, optimizer=optimizer, config=config)[0]
    gathered = []
    # In its first passes DeepSpeed learns in which order weights are needed.
    for chunk_rows in (24, 24, 24, 4):
        sharded.head_chunk_size = chunk_rows
        with CommDebugMode() as communication:
            engine.backward(loss_of(engine, rank, beforehand))
        gathered.append(communication.get_total_counts())
        for expected, actual in zip(whole.parameters(), sharded.parameters(), strict=True):
            gradient = deepspeed.utils.safe_get_full_grad(actual)
            # ZeRO averages over ranks.
            torch.testing.assert_close(2 * gradient, expected.grad)
        engine.step()
    assert gathered[-2] == gathered[-1] > 0, "one gather for all chunks"


@pytest.mark.skipif(not find_spec("deepspeed"), reason="needs pip install -e '.[deepspeed]'")
@pytest.mark.parametrize("beforehand", [True, False])
@pytest.mark.parametrize("tied", [False, True])
def test_head_under_zero3_equals_one_process(tmp_path: Path, tied: bool, beforehand: bool) -> None:
    run_ranks(compare_zero3_with_one_process, tmp_path, tied, beforehand)
