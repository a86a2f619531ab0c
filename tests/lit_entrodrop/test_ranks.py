from pathlib import Path

import numpy as np
import pytest
import torch

from lit_entrodrop import ranks
from tests.helpers.processes import run_ranks

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
