import json
import os
import signal
from itertools import pairwise
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from lit_entrodrop.data import TextDataModule
from lit_entrodrop.data.corpora.registry import load_corpus
from lit_entrodrop.data.packing.blocks import PackedBlocks
from lit_entrodrop.entropy import store_file
from lit_entrodrop.entropy.holdout.context import with_context
from lit_entrodrop.entropy.holdout.gains import HoldoutGains, measure_gains
from lit_entrodrop.entropy.holdout.nearest import nearest_chunks
from lit_entrodrop.model.building import build_causal_lm
from lit_entrodrop.model.causal_lm import CausalLM
from lit_entrodrop.model.config import LMConfig
from regularizers import Outputs, Requirements
from tests.helpers.processes import fork, run_ranks
from tests.helpers.tiny import LLAMA, Tiny, texts
from tests.lit_entrodrop.entropy.conftest import RankData

# Weights this large make context matter.
STRONG = {**LLAMA, "initializer_range": 0.5, "tie_word_embeddings": False}


def build(tiny: Tiny) -> CausalLM:
    torch.manual_seed(0)
    return build_causal_lm(tiny.lm(architecture=STRONG))


@pytest.fixture
def mixed(tiny: Tiny) -> Path:
    """Plain text, some of it longer than a block, and prompts with completions."""
    rows = [{"text": text} for text in texts(20, seed=5, longest=40)]
    asked = zip(texts(15, seed=1), texts(15, seed=2), strict=True)
    rows += [{"prompt": prompt, "completion": completion} for prompt, completion in asked]
    path = tiny.folder / "mixed.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def data_of(tiny: Tiny, corpus: Path, **settings: Any) -> TextDataModule:
    data = RankData(**tiny.data(corpus=str(corpus), holdout=0.3, **settings).hparams)
    data.setup()
    return data


def spans(blocks: PackedBlocks) -> list[slice]:
    return [slice(start, end) for start, end in pairwise(blocks.chunk_starts.tolist())]


def slow_gain(
    model: torch.nn.Module, before: list[int], chunk: list[int], counted: list[bool]
) -> float:
    """Run the Hugging Face model on a chunk alone and behind a text, in float64."""

    def mean(ids: list[int], first: int) -> float:
        with torch.no_grad():
            logits = model(input_ids=torch.tensor([ids])).logits[0]
        log_p = logits.log_softmax(-1)
        terms = [
            -float(log_p[first + place - 1, token])
            for place, (token, counts) in enumerate(zip(chunk, counted, strict=True))
            if counts
        ]
        return sum(terms) / len(terms) if terms else float("nan")

    return mean(chunk, 0) - mean(before + chunk, len(before))


@pytest.mark.parametrize(
    ("block_size", "packing", "neighbors"),
    [(16, True, 3), (16, False, 3), (32, True, 2), (64, True, 3)],
)
def test_gains_are_those_of_a_slow_reference(
    tiny: Tiny, mixed: Path, block_size: int, packing: bool, neighbors: int
) -> None:
    data = data_of(tiny, mixed, block_size=block_size, packing=packing)
    train, holdout = data.blocks("train"), data.blocks("holdout")
    model = build(tiny)
    found = measure_gains(data, model, neighbors, str(tiny.folder / "own"))
    context = LLAMA["max_position_embeddings"]
    length = min(context, (neighbors + 1) * block_size)
    exact = build(tiny).unwrapped.double().eval()
    nearest, pool = nearest_chunks(train, holdout, neighbors), spans(holdout)
    (tokens, labels), (others, _) = train.gather(), holdout.gather()
    expected = []
    for number, span in enumerate(spans(train)):
        chunk, counted = tokens[span].tolist(), labels[span].tolist()
        room = max(length - len(chunk), length // 2) // neighbors
        before = [
            token for each in nearest[number][::-1] for token in others[pool[each]][:room].tolist()
        ]
        kept = length - len(before)
        expected.append(slow_gain(exact, before, chunk[:kept], counted[:kept]))
    # Losses of 6 nats are kept in half precision, and a chunk has few.
    np.testing.assert_allclose(found, expected, atol=4e-3)
    assert np.nanstd(expected) > 0.1


def test_losses_are_read_in_slabs(tiny: Tiny, mixed: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data, model, cache = data_of(tiny, mixed), build(tiny), str(tiny.folder / "own")
    whole = measure_gains(data, model, 3, cache)
    monkeypatch.setattr(store_file, "SLAB", 3 * 16)
    np.testing.assert_array_equal(measure_gains(data, model, 3, cache), whole)


def test_text_that_resembles_holdout_text_gains_more_than_noise(tiny: Tiny) -> None:
    random = Random(0)
    alike = [text for text in load_corpus("hpo") if 60 < len(text) < 120][:24]
    noise = ["#" + "".join(random.choices("abcdefghijklmnopqrstuvwxyz", k=40)) for _ in range(12)]
    for name, documents in {"corpus": alike[:12] + noise, "own": alike[12:]}.items():
        rows = [json.dumps({"text": text}) + "\n" for text in documents]
        (tiny.folder / f"{name}.jsonl").write_text("".join(rows))
    base = "package:lit_entrodrop/model/tiny_base"
    own = str(tiny.folder / "own.jsonl")
    data = tiny.data(tokenizer=base, validation=0.0, holdout=own, block_size=64)
    data.setup()
    model = build_causal_lm(LMConfig(pretrained=base))
    gains = measure_gains(data, model, 3, str(tiny.folder / "cache"))
    train = data.blocks("train")
    tokens = train.gather()[0]
    texts_of_chunks = [data.tokenizer.decode(tokens[span].tolist()) for span in spans(train)]
    is_noise = np.array(["#" in text for text in texts_of_chunks])
    assert is_noise.sum() == 12
    better = gains[~is_noise][:, None] > gains[is_noise]
    assert better.mean() > 0.9


class Counting(CausalLM):
    """Counts the batches that it runs, and may end its process by `kill -9` at one of them."""

    batches, last = 0, -1

    def forward(self, input_ids: Tensor, *arguments: Any, **options: Any) -> Outputs:
        if self.batches == self.last:
            os.kill(os.getpid(), signal.SIGKILL)
        self.batches += 1
        return super().forward(input_ids, *arguments, **options)


def counting(tiny: Tiny, last: int = -1) -> Counting:
    model = Counting(build(tiny).unwrapped)
    model.last = last
    return model


def measure_and_die(tiny: Tiny, data: TextDataModule, cache: str, last: int) -> None:
    measure_gains(data, counting(tiny, last), 3, cache)


def test_killed_measurement_resumes(tiny: Tiny, mixed: Path) -> None:
    data, whole = data_of(tiny, mixed), counting(tiny)
    expected = measure_gains(data, whole, 3, str(tiny.folder / "whole"))
    cache, alone = str(tiny.folder / "killed"), -(-data.num_blocks("train") // 4)
    for last in (alone - 1, 3):  # within the first pass, and within the second
        child = fork(measure_and_die, tiny, data, cache, last)
        child.join(60)
        assert child.exitcode == -signal.SIGKILL
    resumed = counting(tiny)
    found = measure_gains(data, resumed, 3, cache)
    assert resumed.batches == whole.batches - (alone - 1) - 3
    np.testing.assert_array_equal(found, expected)
    again = counting(tiny)
    np.testing.assert_array_equal(measure_gains(data, again, 3, cache), expected)
    assert again.batches == 0


def measure_on_rank(rank: int, tiny: Tiny, data: TextDataModule) -> None:
    model = counting(tiny)
    gains = measure_gains(data, model, 3, str(tiny.folder / "two"))
    torch.save((torch.from_numpy(gains), model.batches), tiny.folder / f"rank{rank}.pt")


def test_two_ranks_share_the_work_and_find_what_one_finds(tiny: Tiny, mixed: Path) -> None:
    data, one = data_of(tiny, mixed), counting(tiny)
    expected = measure_gains(data, one, 3, str(tiny.folder / "one"))
    run_ranks(measure_on_rank, tiny.folder, tiny, data)
    for rank in (0, 1):
        gains, batches = torch.load(tiny.folder / f"rank{rank}.pt")
        np.testing.assert_array_equal(gains.numpy(), expected)
        assert one.batches <= 2 * batches <= one.batches + 2


def test_gain_of_a_chunk_is_attached_to_each_of_its_tokens(tiny: Tiny, mixed: Path) -> None:
    data, own = data_of(tiny, mixed), HoldoutGains(Requirements(holdout_neighbors=3), str(tiny))
    own.gains, own.blocks = torch.arange(999.0), data.blocks("train")
    for batch in data.ordered_dataloader("train"):
        attached = own.attach(batch)
        for row, block in enumerate(batch["block_id"].tolist()):
            first, last = own.blocks.block_starts[block : block + 2]
            lengths = np.diff(own.blocks.chunk_starts)[first:last]
            expected = np.repeat(np.arange(first, last), lengths).tolist()
            found = attached["holdout_gain"][row]
            assert found[: len(expected)].tolist() == expected
            assert found[len(expected) :].isnan().all()
    padding = {"block_id": torch.tensor([-1]), "document_ids": torch.full((1, 16), -1)}
    assert own.attach(padding)["holdout_gain"].isnan().all()


def test_gain_of_a_label_is_that_of_its_first_chunk(tiny: Tiny, mixed: Path) -> None:
    """Under fresh cuts, its chunk in the first epoch."""
    data = data_of(tiny, mixed, repack="epoch")
    own = HoldoutGains(Requirements(holdout_neighbors=3), str(tiny))
    own.gains, own.blocks = torch.arange(999.0), data.blocks("train")
    first: dict[int, float] = {}
    labels_of = dict[int, int]()
    assert data.repacking
    for epoch in (0, 1):
        blocks = data.repacking.blocks(epoch)
        for number in range(-1, len(blocks)):
            row = blocks[blocks.block(number)]
            batch = {name: values[None] for name, values in row.items()}
            gains, labels = own.attach(batch)["holdout_gain"][0], row["labels"] >= 0
            assert gains[row["token_index"] < 0].isnan().all()
            if epoch == 0:
                chunks = own.blocks.chunk_numbers(batch["block_id"], batch["document_ids"])[0]
                assert gains[labels].tolist() == chunks[labels].tolist()
            for token, gain in zip(
                row["token_index"][labels].tolist(), gains[labels].tolist(), strict=True
            ):
                # The first token of a chunk counts with the chunk before.
                assert first.setdefault(token, gain) == gain
        labels_of[epoch] = len(first)
    assert labels_of[1] > labels_of[0], "some texts are cut at other places"


def test_nothing_is_measured_unless_it_is_required(tiny: Tiny) -> None:
    data = tiny.data()
    data.setup()
    nothing, model = HoldoutGains(Requirements(), str(tiny.folder)), counting(tiny)
    nothing.check(data)
    nothing.prepare(data, model)
    assert model.batches == 0
    assert nothing.state_dict() == {}
    assert nothing.attach({}) == {}


def test_more_neighbors_than_there_are_make_blocks_no_longer(
    tiny: Tiny, mixed: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data, model = data_of(tiny, mixed), build(tiny)
    model.unwrapped.config.max_position_embeddings = 100_000
    lengths = []

    def lay(train: PackedBlocks, holdout: PackedBlocks, *given: Any) -> Any:
        lengths.append(given[1])
        return with_context(train, holdout, *given)

    monkeypatch.setattr("lit_entrodrop.entropy.holdout.gains.with_context", lay)
    measure_gains(data, model, 1000, str(tiny.folder / "own"))
    assert lengths == [(data.blocks("holdout").num_chunks + 1) * data.block_size]
