import pickle
from collections.abc import Callable
from pathlib import Path
from random import Random

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from lit_entrodrop.entropy.store import EntropyStore
from lit_entrodrop.runs.writing import WriteError
from tests.helpers.full_disk import files_of_at_most
from tests.helpers.processes import run_ranks

NAN = torch.nan


def draw(blocks: int, block_size: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(blocks, block_size, generator=generator) * 8


def same(actual: Tensor, expected: Tensor) -> None:
    torch.testing.assert_close(actual, expected, atol=0, rtol=0, equal_nan=True)


def test_unknown_until_recorded() -> None:
    store = EntropyStore(3, 4, "abc")
    assert store.lookup(torch.arange(3)).isnan().all()
    entropy = draw(2, 4)
    store.record(torch.tensor([2, 0]), entropy)
    same(store.lookup(torch.tensor([0, 2])), entropy.half().float()[[1, 0]])
    assert store.lookup(torch.tensor([1])).isnan().all()


def test_values_are_kept_in_half_precision_and_read_in_single() -> None:
    store = EntropyStore(1, 1000, "abc")
    entropy = torch.linspace(0, 12, 1000)[None]
    store.record(torch.tensor([0]), entropy)
    assert store.values.dtype == torch.float16
    read = store.lookup(torch.tensor([0]))
    assert read.dtype == torch.float32
    torch.testing.assert_close(read, entropy, atol=1e-4, rtol=2**-11)


@pytest.mark.parametrize("order", [[0, -1, -1], [-1, 0, 1], [-1, -1, 0], [2, 0, -1], [-1, -1, -1]])
def test_dummy_blocks_are_neither_kept_nor_known(order: list[int]) -> None:
    store = EntropyStore(3, 4, "abc")
    old, new = draw(3, 4), draw(3, 4, seed=1)
    store.record(torch.arange(3), old)
    store.merge_ranks()
    block_id = torch.tensor(order)
    store.record(block_id, new)
    real = block_id >= 0
    expected = old.half().float()
    expected[block_id[real]] = new.half().float()[real]
    same(store.lookup(torch.arange(3)), expected)
    assert store.fresh.tolist() == [block in order for block in range(3)]
    assert store.lookup(block_id)[~real].isnan().all()


def test_nan_overwrites_what_was_known() -> None:
    store = EntropyStore(1, 2, "abc")
    store.record(torch.tensor([0]), torch.tensor([[1.0, 2.0]]))
    store.record(torch.tensor([0]), torch.tensor([[NAN, 3.0]]))
    same(store.lookup(torch.tensor([0])), torch.tensor([[NAN, 3.0]]))


def test_quantiles_are_those_of_the_known_entropies() -> None:
    store = EntropyStore(2, 50, "abc")
    entropy = torch.randperm(50, generator=torch.Generator().manual_seed(0)).float()[None]
    store.record(torch.tensor([1]), entropy)
    assert store.quantiles(3).tolist() == [0, 24, 49]
    assert store.quantiles(50).tolist() == list(range(50))
    assert EntropyStore(2, 3, "abc").quantiles(5).isnan().all()


def merge(rank: int, folder: Path) -> None:
    store = EntropyStore(5, 3, "abc")
    store.record(torch.arange(5), torch.full((5, 3), 1.0))
    store.merge_ranks()
    # Block 4 falls to both ranks, block 3 to none; a start of a document is unknown.
    own = torch.tensor([[0, 4], [1, 4]][rank])
    entropy = torch.tensor([[NAN, 2.0 + rank, 0.0]] * 2)
    store.record(own, entropy)
    store.record(torch.tensor([2 if rank else -1]), torch.full((1, 3), 7.0))
    store.merge_ranks()
    assert not store.fresh.any()
    torch.save(store.values, folder / f"rank{rank}.pt")


def test_two_ranks_exchange_entropies(tmp_path: Path) -> None:
    run_ranks(merge, tmp_path, tmp_path)
    ranks = [torch.load(tmp_path / f"rank{rank}.pt") for rank in (0, 1)]
    expected = [[NAN, 2.0, 0.0], [NAN, 3.0, 0.0], [7.0] * 3, [1.0] * 3, [NAN, 3.0, 0.0]]
    for values in ranks:
        same(values.float(), torch.tensor(expected))


def test_temporary_store_leaves_no_file(tmp_path: Path) -> None:
    store = EntropyStore.temporary(3, 4, "abc", tmp_path / "new")
    store.record(torch.tensor([1]), draw(1, 4))
    assert list((tmp_path / "new").iterdir()) == []
    same(store.lookup(torch.tensor([1])), draw(1, 4).half().float())


@pytest.mark.parametrize("seed", range(5))
def test_lookup_gives_what_was_recorded_last(seed: int) -> None:
    random = Random(seed)
    store, expected = EntropyStore(7, 3, "abc"), torch.full((7, 3), NAN)
    for time in range(20):
        block_id = torch.tensor(random.sample(range(-1, 7), 4))
        entropy = draw(4, 3, seed=time)
        store.record(block_id, entropy)
        real = block_id >= 0
        expected[block_id[real]] = entropy[real].half().float()
        asked = torch.tensor(random.choices(range(7), k=5))
        same(store.lookup(asked), expected[asked])
    same(store.values.float(), expected)


def test_quantiles_are_exact_beyond_one_slab(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lit_entrodrop.entropy.store_file.SLAB", 64)
    entropy = draw(40, 30) - 0.01
    entropy[draw(40, 30, seed=1) < 1] = NAN
    store = EntropyStore(50, 30, "abc")
    store.record(torch.arange(40), entropy)
    known = entropy.half()[~entropy.isnan()].float().sort().values
    same(store.quantiles(len(known)), known)
    assert known[0] < 0


def test_store_is_not_copied_to_workers() -> None:
    with pytest.raises(TypeError, match="pass its path"):
        pickle.dumps(EntropyStore(1, 2, "abc"))


def test_damaged_rows_are_reported_and_unknown(tmp_path: Path) -> None:
    path = tmp_path / "e.safetensors"
    store = EntropyStore(3, 2, "abc")
    store.record(torch.arange(3), draw(3, 2))
    store.save(path)
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    with pytest.warns(UserWarning, match=r"1 of 3 blocks of .*e\.safetensors are damaged"):
        loaded = EntropyStore.load(path, "abc")
    same(loaded.lookup(torch.arange(2)), store.lookup(torch.arange(2)))
    assert loaded.lookup(torch.tensor([2])).isnan().all()
    assert loaded.known.tolist() == [True, True, False]


def test_loaded_file_is_not_written_to(tmp_path: Path) -> None:
    path = tmp_path / "e.safetensors"
    EntropyStore(3, 2, "abc").save(path)
    content = path.read_bytes()
    loaded = EntropyStore.load(path, "abc")
    loaded.record(torch.tensor([1]), draw(1, 2))
    assert not loaded.lookup(torch.tensor([1])).isnan().any()
    assert path.read_bytes() == content


def test_file_and_state_give_the_store_back(tmp_path: Path) -> None:
    store = EntropyStore(4, 5, "abc")
    store.record(torch.tensor([1, 3]), draw(2, 5))
    store.save(tmp_path / "deep" / "entropies.safetensors")
    assert [path.name for path in (tmp_path / "deep").iterdir()] == ["entropies.safetensors"]
    loaded = EntropyStore.load(tmp_path / "deep" / "entropies.safetensors", "abc")
    restored = EntropyStore(4, 5, "abc")
    restored.load_state_dict(store.state_dict())
    assert not restored.fresh.any()
    for other in (loaded, restored):
        same(other.values, store.values)
        assert other.fingerprint == "abc"
    restored.record(torch.tensor([1]), draw(1, 5, seed=2))
    same(store.lookup(torch.tensor([1, 3])), draw(2, 5).half().float())


def test_foreign_blocks_are_refused(tmp_path: Path) -> None:
    store = EntropyStore(1, 2, "abc")
    store.save(tmp_path / "e.safetensors")
    refused = r"expected those of the blocks xyz, got those of abc: .* `lit-entrodrop score`"
    with pytest.raises(ValueError, match=refused):
        EntropyStore.load(tmp_path / "e.safetensors", "xyz")
    with pytest.raises(ValueError, match=refused):
        EntropyStore(1, 2, "xyz").load_state_dict(store.state_dict())


def torn(path: Path) -> None:
    EntropyStore(50, 20, "abc").save(path)
    path.write_bytes(path.read_bytes()[:-100])


def of_a_model(path: Path) -> None:
    save_file({"weight": torch.zeros(2)}, path)


BROKEN: dict[str, Callable[[Path], object]] = {
    "torn": torn,
    "empty": lambda path: path.write_bytes(b""),
    "text": lambda path: path.write_text("these are no entropies at all, but a text"),
    "model": of_a_model,
    "folder": lambda path: path.mkdir(),
    "missing": lambda path: None,
}


@pytest.mark.parametrize("name", BROKEN)
def test_broken_file_is_refused(tmp_path: Path, name: str) -> None:
    path = tmp_path / "e.safetensors"
    BROKEN[name](path)
    with pytest.raises(ValueError, match=r"written by `lit-entrodrop score`, got .*e\.safetensors"):
        EntropyStore.load(path, "abc")


def test_failed_write_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "e.safetensors"
    store = EntropyStore(2, 2, "abc")
    store.record(torch.tensor([0]), draw(1, 2))
    store.save(path)
    # No name may be that long, but its temporary one is made.
    with pytest.raises(OSError, match="name too long"):
        store.save(tmp_path / ("e" * 300))
    same(EntropyStore.load(path, "abc").values, store.values)
    assert list(tmp_path.iterdir()) == [path]


def test_row_that_another_process_is_writing_is_not_copied() -> None:
    written, other = draw(2, 2), EntropyStore(2, 2, "abc")
    other.record(torch.tensor([0, 1]), written)
    # The row has been written, its checksum has not.
    other._rows.values[1] = 0
    own = EntropyStore(2, 2, "abc")
    own.absorb(other._rows)
    same(own.values[0], written[0].half())
    assert own.values[1].isnan().all()


def test_full_disk_is_named_with_the_space_needed(tmp_path: Path) -> None:
    store = EntropyStore(1000, 100, "abc")
    needed = r"could not be written \(File too large\): 0\.2 MB needed, .* MB free"
    with files_of_at_most(10_000):
        with pytest.raises(WriteError, match=rf"{tmp_path}/a\.safetensors: {needed}"):
            store.save(tmp_path / "a.safetensors")
        with pytest.raises(WriteError, match=rf"{tmp_path}/unnamed: {needed}"):
            EntropyStore.temporary(1000, 100, "abc", tmp_path)
    assert not list(tmp_path.iterdir())
