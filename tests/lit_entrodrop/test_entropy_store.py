from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from safetensors.torch import save_file
from torch import Tensor

from lit_entrodrop.entropy_store import EntropyStore

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


def merge(rank: int, folder: str) -> None:
    dist.init_process_group(
        "gloo",
        init_method=f"file://{folder}/meet",
        rank=rank,
        world_size=2,
        timeout=timedelta(seconds=60),
    )
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
    torch.save(store.values, f"{folder}/rank{rank}.pt")
    dist.destroy_process_group()


def test_two_ranks_take_over_each_others_entropies(tmp_path: Path) -> None:
    context = mp.start_processes(
        merge, args=(str(tmp_path),), nprocs=2, join=False, start_method="fork"
    )
    assert context is not None
    assert context.join(timeout=60) or context.join(timeout=60)
    ranks = [torch.load(tmp_path / f"rank{rank}.pt") for rank in (0, 1)]
    expected = [[NAN, 2.0, 0.0], [NAN, 3.0, 0.0], [7.0] * 3, [1.0] * 3, [NAN, 3.0, 0.0]]
    for values in ranks:
        same(values.float(), torch.tensor(expected))


def test_file_and_state_give_the_store_back(tmp_path: Path) -> None:
    store = EntropyStore(4, 5, "abc")
    store.record(torch.tensor([1, 3]), draw(2, 5))
    store.save(tmp_path / "deep" / "entropies.safetensors")
    assert [path.name for path in (tmp_path / "deep").iterdir()] == ["entropies.safetensors"]
    loaded = EntropyStore.load(tmp_path / "deep" / "entropies.safetensors", "abc")
    restored = EntropyStore.from_state_dict(store.state_dict(), "abc")
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
        EntropyStore.from_state_dict(store.state_dict(), "xyz")


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
    broken = EntropyStore(2, 2, "abc")
    broken.fingerprint = None  # type: ignore[assignment]
    with pytest.raises(Exception, match=r"str|None"):
        broken.save(path)
    same(EntropyStore.load(path, "abc").values, store.values)
    assert list(tmp_path.iterdir()) == [path]
