import os
import signal
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import PreTrainedModel

from lit_entrodrop.data import TextDataModule
from lit_entrodrop.entropy.score_cache import cached_store_path
from lit_entrodrop.entropy.scoring import score_split
from lit_entrodrop.entropy.store import EntropyStore
from lit_entrodrop.model.causal_lm import CausalLM
from lit_entrodrop.model.clean_pass import forward_clean, score_clean
from regularizers import Outputs
from tests.helpers.processes import fork, run_ranks
from tests.helpers.tiny import Tiny
from tests.lit_entrodrop.entropy.conftest import RankData, build


@pytest.mark.parametrize("training", [True, False])
def test_scores_are_of_eval_mode_and_leave_the_mode(
    tiny: Tiny, data: TextDataModule, training: bool
) -> None:
    model = build(tiny).train(training)
    batch = next(iter(data.ordered_dataloader("train")))
    scored = score_clean(model, batch)
    assert model.training is training
    assert not scored.nll.requires_grad
    torch.testing.assert_close(score_clean(model, batch).entropy, scored.entropy, equal_nan=True)
    repeats = torch.equal(forward_clean(model, batch).nll, forward_clean(model, batch).nll)
    assert repeats is not training
    torch.testing.assert_close(forward_clean(model.eval(), batch).nll, scored.nll)


def test_mode_is_restored_after_an_error(tiny: Tiny) -> None:
    model = build(tiny)
    with pytest.raises(KeyError):
        score_clean(model, {})
    assert model.training


def test_every_block_is_scored(tiny: Tiny, data: TextDataModule) -> None:
    model = build(tiny)
    store, _ = score_split("train", data, model, tiny.folder / "own")
    blocks = data.blocks("train")
    for index in (0, len(blocks) - 1):
        batch = {name: value[None] for name, value in blocks[index].items()}
        expected = score_clean(model, batch).entropy.half().float()
        torch.testing.assert_close(
            store.lookup(torch.tensor([index])), expected, atol=4e-3, rtol=0, equal_nan=True
        )
    known = ~store.lookup(torch.arange(len(blocks))).isnan()
    assert known.any(1).all()
    assert known.sum() == blocks.num_tokens - blocks.num_chunks


def test_scores_are_read_from_the_cache(tiny: Tiny, data: TextDataModule) -> None:
    model, cache = build(tiny), tiny.folder / "own"
    first, path = score_split("train", data, model, cache)
    assert path == cached_store_path(cache, model, data.fingerprint("train"))
    assert list(path.parent.iterdir()) == [path]
    marked = EntropyStore.load(path, data.fingerprint("train"))
    marked.record(torch.arange(len(marked.known)), torch.full_like(marked.values, 3.0))
    marked.save(path)
    assert (score_split("train", data, model, cache)[0].values == 3.0).all()
    assert not (first.values == 3.0).all()


class Counting(CausalLM):
    """Remembers the batches that it runs, and may end its process by `kill -9` at one of them."""

    def __init__(self, hf_model: PreTrainedModel, last: int | None = None) -> None:
        super().__init__(hf_model)
        self.batches: list[Tensor] = []
        self.last = last

    def forward(self, input_ids: Tensor, *arguments: Any, **options: Any) -> Outputs:
        if len(self.batches) == self.last:
            os.kill(os.getpid(), signal.SIGKILL)
        self.batches.append(input_ids)
        return super().forward(input_ids, *arguments, **options)


def counting(tiny: Tiny, last: int | None = None) -> Counting:
    return Counting(build(tiny).unwrapped, last)


def score_and_die(tiny: Tiny, data: TextDataModule, cache: Path, last: int) -> None:
    score_split("train", data, counting(tiny, last), cache)


def test_killed_scoring_resumes(tiny: Tiny, data: TextDataModule) -> None:
    whole = counting(tiny)
    _, expected = score_split("train", data, whole, tiny.folder / "whole")
    batches = len(whole.batches)
    assert batches >= 8
    cache, random, done = tiny.folder / "killed", Random(0), 0
    for _ in range(3):
        last = random.randint(1, (batches - 1) // 3)
        child = fork(score_and_die, tiny, data, cache, last)
        child.join(60)
        assert child.exitcode == -signal.SIGKILL
        done += last
    resumed = counting(tiny)
    _, path = score_split("train", data, resumed, cache)
    assert len(resumed.batches) == batches - done
    for again, first in zip(resumed.batches, whole.batches[done:], strict=True):
        assert torch.equal(again, first)
    assert path.read_bytes() == expected.read_bytes()
    assert list(path.parent.iterdir()) == [path]
    score_split("train", data, resumed, cache)
    assert len(resumed.batches) == batches - done


def score_on_rank(rank: int, tiny: Tiny, data: TextDataModule, cache: Path, folder: Path) -> None:
    model = counting(tiny)
    store, path = score_split("train", data, model, cache)
    torch.save((store.values, len(model.batches), str(path)), folder / f"rank{rank}.pt")


def test_two_ranks_write_what_one_writes(tiny: Tiny) -> None:
    data = RankData(**tiny.data().hparams)
    data.setup()
    _, expected = score_split("train", data, counting(tiny), tiny.folder / "one")
    batches = -(-data.num_blocks("train") // 4)
    # A single process, killed, has left the first batches.
    cache = tiny.folder / "two"
    fork(score_and_die, tiny, data, cache, 3).join(60)
    run_ranks(score_on_rank, tiny.folder, tiny, data, cache, tiny.folder)
    for rank in (0, 1):
        values, ran, path = torch.load(tiny.folder / f"rank{rank}.pt")
        assert ran == -(-(batches - 3) // 2)
        assert Path(path).read_bytes() == expected.read_bytes()
        kept = EntropyStore.load(expected, data.fingerprint("train")).values
        torch.testing.assert_close(values, kept, atol=0, rtol=0, equal_nan=True)
    assert len(list((cache / "entropy").iterdir())) == 1


def test_torn_file_of_the_cache_is_completed(tiny: Tiny, data: TextDataModule) -> None:
    _, path = score_split("train", data, build(tiny), tiny.folder / "own")
    intact = path.read_bytes()
    path.write_bytes(intact[:-1] + bytes([intact[-1] ^ 1]))
    model = counting(tiny)
    with pytest.warns(UserWarning, match="1 of .* blocks of .* are damaged"):
        store, _ = score_split("train", data, model, tiny.folder / "own")
    assert len(model.batches) == 1
    assert store.known.all()
    assert path.read_bytes() == intact


@pytest.mark.parametrize("damage", [lambda b: b[:-100], lambda _: b"", lambda b: b"\0" + b[1:]])
def test_unreadable_file_of_the_cache_is_replaced(
    tiny: Tiny, data: TextDataModule, damage: Callable[[bytes], bytes]
) -> None:
    _, path = score_split("train", data, build(tiny), tiny.folder / "own")
    intact = path.read_bytes()
    path.write_bytes(damage(intact))
    with pytest.warns(UserWarning, match="has a damaged file, which is scored again"):
        store, _ = score_split("train", data, build(tiny), tiny.folder / "own")
    assert store.known.all()
    assert path.read_bytes() == intact
