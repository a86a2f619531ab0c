import os
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from lit_entrodrop.runtime import ranks
from lit_entrodrop.training.strategies import FSDP2Strategy
from regularizers import Regularizer, TrainingStep
from tests.helpers.processes import run_ranks, torchrun_environment
from tests.helpers.tiny import Tiny

BLOCKS, TOKENS = 11, 4


def rows_of(rank: int) -> np.ndarray:
    values = np.random.default_rng(rank).normal(1, 2, (BLOCKS, TOKENS)).astype(np.float16)
    values[:, rank] = np.nan
    return values


def talk(rank: int, folder: Path) -> None:
    ranks.SLAB = 2 * TOKENS
    fresh = np.arange(BLOCKS) % 4 == rank
    exchanged = list(ranks.exchange_rows(rows_of(rank), fresh))
    agreed = [ranks.all_agree(True), ranks.all_agree(rank == 0), ranks.all_agree(False)]
    nothing = list(ranks.exchange_rows(rows_of(rank), np.zeros(BLOCKS, dtype=bool)))
    torch.save((exchanged, agreed, nothing, ranks.is_first()), folder / f"rank{rank}.pt")


def test_only_fresh_rows_travel_in_slabs_and_keep_their_bits(tmp_path: Path) -> None:
    run_ranks(talk, tmp_path, tmp_path)
    for rank in (0, 1):
        exchanged, agreed, nothing, first = torch.load(tmp_path / f"rank{rank}.pt")
        assert agreed == [True, False, False]
        assert nothing == []
        assert first is (rank == 0)
        assert [len(blocks) for blocks, _ in exchanged] == [2, 2, 2]
        for blocks, values in exchanged:
            for block, row in zip(blocks.tolist(), values.numpy(), strict=True):
                assert row.tobytes() == rows_of(block % 4)[block].tobytes()
        assert torch.cat([blocks for blocks, _ in exchanged]).tolist() == [0, 1, 4, 5, 8, 9]


@pytest.mark.parametrize("here", [True, False])
def test_a_process_alone_agrees_with_itself(here: bool) -> None:
    assert ranks.is_first()
    assert ranks.all_agree(here) is here
    assert list(ranks.exchange_rows(rows_of(0), np.ones(BLOCKS, dtype=bool))) == []


class Gather(Regularizer):
    """Keeps its own words and those of all ranks."""

    def on_token_weight(self, token_weight: Tensor, step: TrainingStep) -> Tensor:
        self.own = step.input_ids
        self.gathered = step.gather(step.input_ids)
        self.dummy = step.gather(token_weight.new_ones(1, requires_grad=True))
        return token_weight


STRATEGIES: dict[str, Callable[[], Any]] = {
    "ddp": lambda: "ddp",
    "fsdp2": FSDP2Strategy,
    "tensor_parallel": partial(FSDP2Strategy, tensor_parallel_size=2),
}


def gather_under_each(rank: int, tiny: Tiny) -> None:
    os.environ |= torchrun_environment(rank, 2)
    found = {}
    for name, make in STRATEGIES.items():
        gather = Gather()
        trainer = tiny.trainer(strategy=make(), devices=2, max_steps=1, limit_val_batches=0)
        module = tiny.module(gather, lm={"config_overrides": {"num_key_value_heads": 2}})
        trainer.fit(module, datamodule=tiny.data())
        assert not gather.dummy.requires_grad
        found[name] = (gather.own, gather.gathered)
    torch.save(found, tiny.folder / f"gathered{rank}.pt")


def test_rows_of_ranks_with_batches_of_their_own_are_gathered(tiny: Tiny) -> None:
    run_ranks(gather_under_each, tiny.folder, tiny)
    first, second = (torch.load(tiny.folder / f"gathered{rank}.pt") for rank in (0, 1))
    for name in ("ddp", "fsdp2"):
        owned = [found[name][0] for found in (first, second)]
        assert not torch.equal(*owned)
        for found in (first, second):
            assert torch.equal(found[name][1], torch.cat(owned))
    # Ranks that share a batch count once.
    shared = first["tensor_parallel"][0]
    for found in (first, second):
        assert torch.equal(found["tensor_parallel"][0], shared)
        assert torch.equal(found["tensor_parallel"][1], shared)


def test_one_rank_gathers_its_own_rows_without_gradient(tiny: Tiny) -> None:
    rows = torch.ones(2, 3, requires_grad=True)
    gathered = ranks.gather_rows(rows, tiny.trainer())
    assert torch.equal(gathered, rows)
    assert not gathered.requires_grad
