from pathlib import Path

import pytest
import torch

from lit_entrodrop.building import build_causal_lm
from lit_entrodrop.causal_lm import CausalLM
from lit_entrodrop.data import TextDataModule
from lit_entrodrop.entropies import Entropies, blank_store, score_split
from lit_entrodrop.entropy_store import EntropyStore
from lit_entrodrop.scoring import (
    cached_store_path,
    forward_clean,
    score_blocks,
    score_clean,
    weights_fingerprint,
)
from regularizers import Requirements
from tests.helpers.tiny import LLAMA, Tiny

NOISY = {**LLAMA, "attention_dropout": 0.5}


def build(tiny: Tiny, seed: int = 0) -> CausalLM:
    torch.manual_seed(seed)
    return build_causal_lm(tiny.lm(architecture=NOISY))


@pytest.fixture
def data(tiny: Tiny) -> TextDataModule:
    data = tiny.data()
    data.setup()
    return data


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
    model, store = build(tiny), blank_store(data, "train")
    score_blocks(model, data.ordered_dataloader("train"), store, "Scoring")
    blocks = data._packed("train").blocks
    for index in (0, len(blocks) - 1):
        batch = {name: value[None] for name, value in blocks[index].items()}
        expected = score_clean(model, batch).entropy.half().float()
        torch.testing.assert_close(
            store.lookup(torch.tensor([index])), expected, atol=4e-3, rtol=0, equal_nan=True
        )
    known = ~store.lookup(torch.arange(len(blocks))).isnan()
    assert known.any(1).all()
    assert known.sum() == len(blocks.tokens) - (len(blocks.chunk_starts) - 1)


def test_scores_are_read_from_the_cache(tiny: Tiny, data: TextDataModule) -> None:
    model, cache = build(tiny), tiny.folder / "own"
    first = score_split("train", data, model, cache)
    path = cached_store_path(cache, model, data.fingerprint("train"))
    assert path.exists()
    marked = EntropyStore.load(path, data.fingerprint("train"))
    marked.values[:] = 3.0
    marked.save(path)
    assert (score_split("train", data, model, cache).values == 3.0).all()
    assert not (first.values == 3.0).all()


def test_fingerprint_follows_weights_and_names(tiny: Tiny) -> None:
    assert weights_fingerprint(build(tiny)) == weights_fingerprint(build(tiny))
    assert weights_fingerprint(build(tiny)) != weights_fingerprint(build(tiny, seed=1))
    assert weights_fingerprint(build(tiny).bfloat16()) != weights_fingerprint(build(tiny))
    scalar, empty = torch.nn.Module(), torch.nn.Module()
    scalar.register_buffer("x", torch.tensor(1.0))
    assert weights_fingerprint(scalar) != weights_fingerprint(empty)


def test_cache_tells_models_that_differ_in_more_than_weights(tiny: Tiny) -> None:
    torch.manual_seed(0)
    other = build_causal_lm(
        tiny.lm(
            architecture={**NOISY, "rope_parameters": {"rope_type": "default", "rope_theta": 5.0}}
        )
    )
    model = build(tiny)
    assert weights_fingerprint(other) == weights_fingerprint(model)
    assert cached_store_path(".", other, "a" * 32) != cached_store_path(".", model, "a" * 32)
    assert cached_store_path(".", model, "b" * 32) != cached_store_path(".", model, "a" * 32)
    assert cached_store_path(".", build(tiny), "a" * 32) == cached_store_path(".", model, "a" * 32)


def test_cache_folder_may_be_in_the_home(
    tiny: Tiny, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    assert tmp_path in cached_store_path("~/cache", build(tiny), "a" * 32).parents


def test_threshold_halves_the_validation_tokens(tiny: Tiny, data: TextDataModule) -> None:
    entropies = Entropies(Requirements(), None, str(tiny.folder / "cache"))
    # Weights this large spread the entropies, so that half precision makes few ties.
    spread = build_causal_lm(tiny.lm(architecture={**LLAMA, "initializer_range": 1.0}))
    entropies.prepare(data, spread, None)
    known = entropies.stores["validation"].values
    known = known[~known.isnan()]
    low = (known.float() <= entropies.threshold).float().mean()
    assert low.item() == pytest.approx(0.5, abs=0.1)
    assert set(entropies.stores) == {"validation"}
    assert entropies.of_inputs({}, build(tiny)) is None


def test_restored_entropies_of_other_blocks_are_refused(tiny: Tiny, data: TextDataModule) -> None:
    entropies = Entropies(Requirements(entropy="last_epoch"), None, str(tiny.folder / "cache"))
    entropies.prepare(data, build(tiny), None)
    other = tiny.data(block_size=32)
    other.setup()
    resumed = Entropies(Requirements(entropy="last_epoch"), None, str(tiny.folder / "cache"))
    resumed.load_state_dict(entropies.state_dict())
    with pytest.raises(ValueError, match="entropies: expected those of the blocks"):
        resumed.prepare(other, build(tiny), None)
