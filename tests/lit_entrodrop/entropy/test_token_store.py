"""Entropies that are stored by token, over epochs with other blocks."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from lit_entrodrop.data.loading.repacking import Repacking
from lit_entrodrop.data.packing.best_fit import pack_documents
from lit_entrodrop.data.tokenizing import TokenizedDocuments
from lit_entrodrop.entropy.store import EntropyStore
from lit_entrodrop.entropy.token_store import TokenEntropyStore
from tests.helpers.processes import run_ranks

BLOCK = 8


def documents(windowed: bool = False) -> TokenizedDocuments:
    """Make texts, most of them longer than a block; or chats, whose chunks share context."""
    random = np.random.default_rng(0)
    lengths = random.integers(2, 40, 20)
    tokens = np.arange(lengths.sum(), dtype=np.uint32)
    counted = random.random(len(tokens)) < (0.3 if windowed else 2)
    return TokenizedDocuments(tokens, counted, lengths)


def empty_store(repacking: Repacking, folder: Path) -> TokenEntropyStore:
    first = repacking.first
    return TokenEntropyStore(len(first.tokens), BLOCK, first.fingerprint, folder)


def entropy_of(epoch: int, number: int, chunk_starts: Tensor) -> Tensor:
    """Make up entropies of a block; nothing predicts the first token of a chunk."""
    values = np.random.default_rng((epoch, number)).random(BLOCK).astype(np.float32) * 8
    return torch.from_numpy(values).masked_fill(chunk_starts, torch.nan)


def run(
    repacking: Repacking, store: TokenEntropyStore, epochs: range, ranks: int = 1, rank: int = 0
) -> tuple[list[Tensor], list[dict[int, list[float]]]]:
    """Look up and record all blocks; return what was found, and recorded by token and epoch."""
    found, recorded = [], list[dict[int, list[float]]]()
    for epoch in epochs:
        store.start_epoch()
        blocks, of_epoch = repacking.blocks(epoch), dict[int, list[float]]()
        order = np.random.default_rng(epoch).permutation(len(blocks))[rank::ranks]
        for number in order.tolist():
            row = blocks[blocks.block(number)]
            places = row["token_index"][None]
            found.append(store.lookup(places).masked_fill(places < 0, -1))
            values = entropy_of(epoch, number, row["position_ids"] == 0)
            store.record(places, values[None])
            for place, value in zip(places[0].tolist(), values.tolist(), strict=True):
                if place >= 0 and not np.isnan(value):
                    of_epoch.setdefault(place, []).append(value)
        recorded.append(of_epoch)
    return found, recorded


@pytest.mark.parametrize("windowed", [False, True])
def test_entropies_are_found_in_other_blocks(tmp_path: Path, windowed: bool) -> None:
    text = documents(windowed)
    repacking = Repacking(pack_documents(text, BLOCK, pad_id=0), seed=0)
    store = empty_store(repacking, tmp_path)
    _, recorded = run(repacking, store, range(4))
    shared = {len(values) for epoch in recorded for values in epoch.values()}
    assert shared == ({1, 2} if windowed else {1})
    expected = np.full(len(text.tokens), np.nan, np.float32)
    for of_epoch in recorded:
        before = store.lookup(torch.arange(len(text.tokens)))
        for place, values in of_epoch.items():
            expected[place] = np.float16(max(values))
    # The last epoch is not in use yet.
    assert not np.array_equal(before.numpy(), expected, equal_nan=True)
    store.start_epoch()
    found = store.lookup(torch.arange(len(text.tokens)))
    np.testing.assert_array_equal(found.numpy(), expected)
    kept = set(recorded[2]) - set(recorded[3])
    assert kept or windowed, "a token begins a chunk in the last epoch and not before"
    np.testing.assert_array_equal(store.quantiles()[[0, -1]], [np.nanmin(found), np.nanmax(found)])


def test_state_within_an_epoch_continues_to_the_bit(tmp_path: Path) -> None:
    repacking = Repacking(pack_documents(documents(), BLOCK, pad_id=0), seed=0)
    whole, first, second = (empty_store(repacking, tmp_path) for _ in range(3))
    found, _ = run(repacking, whole, range(3))
    _ = run(repacking, first, range(2))
    # Within the second epoch, its entropies wait for the third.
    second.load_state_dict(first.state_dict())
    resumed, _ = run(repacking, second, range(2, 3))
    assert all(
        a.equal(b) or torch.allclose(a, b, 0, 0, equal_nan=True)
        for a, b in zip(resumed, found[-len(resumed) :], strict=True)
    )
    other = TokenEntropyStore(9, BLOCK, "other", tmp_path)
    with pytest.raises(ValueError, match="entropies: expected those of the blocks other"):
        other.load_state_dict(first.state_dict())


def test_entropies_of_blocks_are_found_by_token(tmp_path: Path) -> None:
    blocks = pack_documents(documents(windowed=True), BLOCK, pad_id=0)
    by_block = EntropyStore(len(blocks), BLOCK, blocks.fingerprint)
    expected: dict[int, float] = {}
    for number in range(len(blocks)):
        row = blocks[blocks.block(number)]
        values = entropy_of(0, number, row["position_ids"] == 0)
        by_block.record(torch.tensor([number]), values[None])
        for place, value in zip(row["token_index"].tolist(), values.half().tolist(), strict=True):
            if place >= 0:
                expected[place] = np.fmax(expected.get(place, np.nan), value)
    store = TokenEntropyStore.of_blocks(by_block, blocks, tmp_path)
    places = torch.tensor(sorted(expected))
    found = store.lookup(places).tolist()
    np.testing.assert_array_equal(found, [expected[place] for place in places.tolist()])
    assert store.lookup(torch.tensor([-1])).isnan().all()


def rank_run(rank: int, folder: Path) -> None:
    repacking = Repacking(pack_documents(documents(windowed=True), BLOCK, pad_id=0), seed=0)
    store = empty_store(repacking, folder)
    run(repacking, store, range(3), ranks=2, rank=rank)
    store.merge_ranks()
    torch.save(store.state_dict(), folder / f"{rank}.pt")
    store.start_epoch()
    torch.save(store.lookup(torch.arange(len(repacking.first.tokens))), folder / f"all{rank}.pt")


def test_two_ranks_know_what_one_knows(tmp_path: Path) -> None:
    repacking = Repacking(pack_documents(documents(windowed=True), BLOCK, pad_id=0), seed=0)
    store = empty_store(repacking, tmp_path)
    run(repacking, store, range(3))
    state = store.state_dict()
    store.start_epoch()
    found = store.lookup(torch.arange(len(repacking.first.tokens)))
    run_ranks(rank_run, tmp_path, tmp_path)
    for rank in range(2):
        of_rank = torch.load(tmp_path / f"{rank}.pt")
        for which in ("known", "recorded"):
            known = state[which]["values"]
            torch.testing.assert_close(
                of_rank[which]["values"], known, atol=0, rtol=0, equal_nan=True
            )
        of_all = torch.load(tmp_path / f"all{rank}.pt")
        torch.testing.assert_close(of_all, found, atol=0, rtol=0, equal_nan=True)
