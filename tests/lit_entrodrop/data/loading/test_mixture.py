"""Training batches of real data modules with replay and weights."""

from collections import Counter
from collections.abc import Sequence
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from lit_entrodrop.data import TextDataModule
from lit_entrodrop.data.adjustments import BEYOND_LIMIT
from lit_entrodrop.data.loading.loaders import Batching
from lit_entrodrop.data.loading.training_batches import TrainingBatches, check_same_batches
from lit_entrodrop.data.mixing import Replay
from tests.lit_entrodrop.data.conftest import DataModuleFactory, texts, write_jsonl

SHARE = 0.25


def write_general(tmp_path: Path, count: int = 60) -> str:
    rows = [{"text": f"general {text}"} for text in texts(count, seed=9)]
    return str(write_jsonl(tmp_path / "general.jsonl", rows))


@pytest.fixture
def with_replay(datamodule: DataModuleFactory, tmp_path: Path) -> DataModuleFactory:
    def make(**settings: Any) -> TextDataModule:
        replay = {"share": SHARE, **settings.pop("replay", {})}
        data = datamodule(replay=Replay(write_general(tmp_path), **replay), **settings)
        data.setup()
        return data

    return make


def batches(data: TextDataModule, ranks: int = 1, rank: int = 0, start: Any = None) -> list[Any]:
    """Load two epochs of batches, or the rest after a state."""
    batching = Batching(4 // ranks, 0, ranks, rank)
    repacked = data.repacking, data.corpus_readings()
    training = TrainingBatches(data.mixture, lambda: 2, batching, *repacked)
    training.load_state_dict(start or {})
    loaded = []
    for epoch in range(start["epoch"] if start else 0, 2):
        training.loader.sampler.set_epoch(epoch)  # type: ignore[attr-defined]
        loaded += [{**batch, "state": training.state_dict()} for batch in training.loader]
    return loaded


def rows(loaded: Sequence[dict[str, Any]]) -> list[str]:
    """Return the content and the source of each row, without padding."""
    return [
        f"{source} {ids.tolist()}"
        for batch in loaded
        for ids, real, source in zip(
            batch["input_ids"], batch["document_ids"][:, 0] >= 0, batch["source"], strict=True
        )
        if real
    ]


def test_replay_has_its_share_of_the_labels_in_every_batch(with_replay: DataModuleFactory) -> None:
    data = with_replay()
    loaded = batches(data)
    labels = np.zeros(2)
    for batch in loaded:
        counts = (batch["labels"] != -100).sum(1)
        labels += [int(counts[batch["source"] == source].sum()) for source in (0, 1)]
        assert (batch["source"] == batch["unregularized"]).all()
        assert (batch["block_id"][batch["source"] == 1] == -1).all()
    blocks = data.readings_per_epoch()
    assert labels[1] / labels.sum() == pytest.approx(SHARE, abs=1 / blocks)
    shares = [float((batch["source"] == 1).float().mean()) for batch in loaded[: blocks // 4]]
    assert max(shares) - min(shares) <= 0.25


def test_domain_is_read_as_without_replay(
    datamodule: DataModuleFactory, with_replay: DataModuleFactory
) -> None:
    plain, mixed = datamodule(), with_replay()
    plain.setup()
    assert plain.fingerprint("train") == mixed.fingerprint("train")
    read = [
        [block for batch in batches(data) for block in batch["block_id"].tolist() if block >= 0]
        for data in (plain, mixed)
    ]
    assert read[0] == read[1]
    assert "source" not in batches(plain)[0]


def test_share_0_is_no_replay(
    datamodule: DataModuleFactory, with_replay: DataModuleFactory
) -> None:
    plain, none = datamodule(), with_replay(replay={"share": 0})
    plain.setup()
    assert none.summary() == plain.summary()
    for ours, theirs in zip(batches(none), batches(plain), strict=True):
        assert ours.pop("state") == theirs.pop("state")
        torch.testing.assert_close(ours, theirs, rtol=0, atol=0)


@pytest.mark.parametrize("repack", ["never", "epoch"])
def test_two_ranks_read_what_one_reads(with_replay: DataModuleFactory, repack: str) -> None:
    data = with_replay(repack=repack)
    shares = [batches(data, ranks=2, rank=rank) for rank in (0, 1)]
    pairs = chain.from_iterable(zip(*(map(rows, [[b] for b in share]) for share in shares)))  # noqa: B905
    assert Counter(chain.from_iterable(pairs)) == Counter(rows(batches(data)))


@pytest.mark.parametrize(("batch", "repack"), [(0, "never"), (3, "epoch"), (-2, "epoch")])
def test_loader_resumes_within_an_epoch(
    with_replay: DataModuleFactory, batch: int, repack: str
) -> None:
    loaded = batches(with_replay(repack=repack))
    state = loaded[batch]["state"]
    rest = batches(with_replay(repack=repack), start=state)
    whole = rows(loaded)
    assert rows(rest) == whole[len(whole) - len(rows(rest)) :]
    assert len(loaded) - len(rest) == (batch % len(loaded)) + 1


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"replay": {"share": 0.5}}, "data.replay: expected .* blocks per epoch of the replay"),
        ({"seed": 5}, "data.seed: expected 0, because .* got 5: restore it"),
    ],
)
def test_other_mixture_is_refused_within_an_epoch(
    with_replay: DataModuleFactory, settings: dict[str, Any], message: str
) -> None:
    amid, *_, ended = batches(with_replay())
    other, batching = with_replay(**settings).mixture, Batching(4, 0, 1, 0)
    with pytest.raises(ValueError, match=message):
        check_same_batches(amid["state"], batching, other, "never")
    check_same_batches(ended["state"], batching, other, "never")


def test_other_weights_are_refused_by_name(datamodule: DataModuleFactory, tmp_path: Path) -> None:
    def weighted(weight: float) -> TextDataModule:
        other = {"source": write_general(tmp_path), "weight": weight}
        data = datamodule(corpus=[str(tmp_path / "corpus.jsonl"), other])
        data.setup()
        return data

    write_jsonl(tmp_path / "corpus.jsonl", [{"text": text} for text in texts(60)])
    state, batching = batches(weighted(1.0))[0]["state"], Batching(4, 0, 1, 0)
    expected = r"^data\.corpus: expected the weights {.*1.0}, .* got the weights {.*2.0}: restore"
    with pytest.raises(ValueError, match=expected):
        check_same_batches(state, batching, weighted(2.0).mixture, "never")


def test_forgetting_text_is_left_out_of_replay(
    with_replay: DataModuleFactory, tmp_path: Path
) -> None:
    general = write_general(tmp_path)
    data = with_replay(forgetting=general, forgetting_tokens=300)
    evaluated, replayed = (data.splits[name].documents for name in ("forgetting", "replay"))
    assert evaluated + replayed == 60
    assert f"{evaluated} documents left out: they are in evaluation text" in data.summary()
    decoded = [
        set(data.tokenizer.decode(data.blocks(name).gather()[0]).split("<s>")[1:])
        for name in ("forgetting", "replay")
    ]
    assert not decoded[0] & decoded[1]
    with pytest.raises(ValueError, match=r"data.replay.corpus: expected documents .* got none"):
        with_replay(forgetting=general)


def test_replay_is_a_bounded_sample(with_replay: DataModuleFactory) -> None:
    data = with_replay(replay={"max_tokens": 200})
    assert 100 < data.blocks("replay").num_tokens <= 200
    left_out = 60 - data.splits["replay"].documents
    assert data.splits["replay"].adjustments[BEYOND_LIMIT] == left_out
    with pytest.raises(ValueError, match=r"replay.max_tokens: expected room for a whole document"):
        with_replay(replay={"max_tokens": 2})


def write_sources(tmp_path: Path) -> list[dict[str, Any]]:
    sources = []
    for name, count, weight in (("notes", 60, 1.0), ("exam", 20, 3.0)):
        rows = [{"text": f"{name} {text}"} for text in texts(count, seed=count)]
        path = write_jsonl(tmp_path / f"{name}.jsonl", rows)
        sources.append({"source": str(path), "weight": weight})
    return sources


def test_weighted_sources_have_blocks_of_their_own(
    datamodule: DataModuleFactory, tmp_path: Path
) -> None:
    data = datamodule(corpus=write_sources(tmp_path))
    data.setup()
    assert data.mixture.names == ["notes", "exam"]
    loaders = {"train": batches(data), "validation": data.ordered_dataloader("validation")}
    for loaded in loaders.values():
        for batch in loaded:
            texts = data.tokenizer.batch_decode(batch["input_ids"])
            for text, source in zip(texts, batch["source"].tolist(), strict=True):
                assert (["notes", "exam"][1 - source] + " ") not in text
    sizes = data.mixture.sizes
    shares = np.array(sizes) * [1, 3] / (sizes[0] + 3 * sizes[1])
    assert data.mixture.readings == pytest.approx(sum(sizes) * shares, abs=1)
    assert sum(data.mixture.readings) == data.num_blocks("train")


def test_weights_go_with_replay(with_replay: DataModuleFactory, tmp_path: Path) -> None:
    data = with_replay(corpus=write_sources(tmp_path))
    assert data.mixture.names == ["notes", "exam", "replay"]
    counted = np.zeros(3)
    for batch in batches(data):
        np.add.at(counted, batch["source"].numpy(), (batch["labels"] != -100).sum(1).numpy())
    assert counted[2] / counted.sum() == pytest.approx(SHARE, abs=0.01)


def test_cache_distinguishes_weights(datamodule: DataModuleFactory, tmp_path: Path) -> None:
    sources = write_sources(tmp_path)
    joint, apart = (
        datamodule(corpus=[each["source"] for each in sources]),
        datamodule(corpus=sources),
    )
    for data in (joint, apart):
        data.setup()
    assert joint.mixture.names == []
    assert joint.fingerprint("train") != apart.fingerprint("train")
