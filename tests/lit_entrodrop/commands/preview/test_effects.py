"""What the preview shows is what `fit` does in the same step."""

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from lit_entrodrop.commands.doctor.model_probe import ModelProbe
from lit_entrodrop.commands.preview.batches import training_batches
from lit_entrodrop.commands.preview.effects import SeenBatch, see_with_model, see_without_model
from lit_entrodrop.data.mixing import Replay
from lit_entrodrop.entropy.store import EntropyStore
from lit_entrodrop.training.module import LitCausalLM
from regularizers import (
    EntroDrop,
    Focal,
    Goldfish,
    HoldoutLossSelection,
    RandomTokenDropout,
    Regularizer,
    TokenReplacement,
)
from tests.helpers.doctor import make_run
from tests.helpers.tiny import Tiny, texts, write_corpus

ACCUMULATE = 2
DATA = {"repack": "epoch"}  # an epoch has blocks of its own
Done = dict[str, Tensor]


class Recording(LitCausalLM):
    """Record, for each micro-batch of a fit, its tokens and what its regularizers do to them."""

    def regularized_loss(self, batch: Any, step: Any, regularizers: Any) -> Any:
        ones = torch.ones(*step.input_ids.shape, 3)
        self.done = getattr(self, "done", {})
        self.done[step.global_step, step.micro_batch] = {
            "block_id": batch["block_id"],
            "input_ids": regularizers.on_input_ids(step),
            "dropped": regularizers.on_embeddings(ones, step)[..., 0] == 0,
            "weight": regularizers.on_token_weight(step),
        }
        return super().regularized_loss(batch, step, regularizers)


def fitted(tiny: Tiny, *regularizers: Regularizer, **limits: Any) -> dict[tuple[int, int], Done]:
    """Fit within limits, and return what was done by step and micro-batch."""
    module = tiny.module(*regularizers)
    module.__class__ = Recording
    trainer = tiny.trainer(accumulate_grad_batches=ACCUMULATE, limit_val_batches=0, **limits)
    trainer.fit(module, datamodule=tiny.data(**DATA))
    done: dict[tuple[int, int], Done] = module.done
    return done


def seen(
    tiny: Tiny,
    progress: float,
    *regularizers: Regularizer,
    model: bool,
    data: dict[str, Any] = DATA,
    **settings: Any,
) -> list[SeenBatch]:
    run = make_run(tiny, data=data)
    run.module = tiny.module(*regularizers, **settings)
    run.trainer.accumulate_grad_batches = ACCUMULATE
    batches = list(training_batches(run, progress, blocks=8))
    found: list[SeenBatch] = []

    def see() -> None:
        probe = ModelProbe(run)
        found.extend(see_with_model(probe, batch) for batch in batches)

    if model:
        run.with_model(see)
    else:
        found.extend(see_without_model(run, batch) for batch in batches)
    return found


def assert_as_done(shown: SeenBatch, done: Done, *, ids: int, inputs: int, weights: int) -> None:
    """Compare with the effects of the regularizers of some indices."""
    batch = shown.selected.batch
    assert batch["block_id"].equal(done["block_id"])
    new, old = shown.effects[ids].new_ids, batch["input_ids"].numpy()
    np.testing.assert_array_equal(np.where(new >= 0, new, old), done["input_ids"])
    np.testing.assert_array_equal(shown.effects[inputs].dropped, done["dropped"])
    weight, counts = shown.effects[weights].weight, batch["labels"].numpy() != -100
    np.testing.assert_array_equal(np.where(np.isnan(weight), counts, weight), done["weight"])


def regularizers() -> list[Regularizer]:
    return [TokenReplacement(0.5), RandomTokenDropout(0.4), Goldfish(0.5, context=2)]


@pytest.fixture(scope="module")
def trained(tiny_module: Tiny) -> dict[tuple[int, int], Done]:
    return fitted(tiny_module, *regularizers())


@pytest.mark.parametrize("progress", [0.6, 1.0])
def test_tokens_are_those_that_training_changes(
    tiny_module: Tiny, progress: float, trained: dict[tuple[int, int], Done]
) -> None:
    steps = 1 + max(step for step, _ in trained)
    for model in (True, False):
        found = seen(tiny_module, progress, *regularizers(), model=model)
        assert len(found) == ACCUMULATE
        for shown in found:
            place = shown.selected.place
            assert place is not None
            assert place.steps == steps
            assert place.step == min(round(progress * steps), steps - 1)
            done = trained[place.step, place.micro_batch]
            assert_as_done(shown, done, ids=0, inputs=1, weights=2)
            assert shown.effects[1].dropped.any()
            assert (shown.effects[2].weight == 0).any()
        assert (found[0].mean_loss is not None) == model


@pytest.mark.parametrize("model", [True, False])
def test_replay_is_shown_as_regularizers_leave_it(tiny: Tiny, model: bool) -> None:
    general = write_corpus(tiny.folder / "general.jsonl", texts(40, seed=1))
    data = {"replay": Replay(str(general), share=0.5), **DATA}
    for shown in seen(tiny, 0.5, RandomTokenDropout(0.5), model=model, data=data):
        splits = [split for split, _ in shown.selected.blocks]
        assert {"train", "replay"} == set(splits)
        dropped = shown.effects[0].dropped.any(1)
        assert dropped.tolist() == [split == "train" for split in splits]


def test_first_step_has_the_entropies_that_training_has(tiny: Tiny) -> None:
    online = EntroDrop(curriculum=0.8, replacement="zero", entropy_source="online")
    done = fitted(tiny, online, max_epochs=1, limit_train_batches=1)[0, 0]
    [first, _] = seen(tiny, 0.0, online, model=True)
    assert first.effects[0].dropped.any()
    np.testing.assert_array_equal(first.effects[0].dropped, done["dropped"])
    # No entropy is known before the first epoch has ended.
    [first, _] = seen(tiny, 0.0, EntroDrop(curriculum=0.8, replacement="zero"), model=True)
    assert not first.effects[0].dropped.any()
    [later, _] = seen(tiny, 0.9, EntroDrop(curriculum=0.8, replacement="zero"), model=True)
    dropped = later.effects[0].dropped
    assert dropped.any()
    # Of each row, tokens of low entropy alone.
    for row, entropies in zip(dropped, later.entropy, strict=True):
        assert (entropies[row] <= np.nanmedian(entropies)).all()


@pytest.mark.parametrize("repack", ["never", "epoch"])
def test_entropies_of_a_file_are_those_of_the_file(tiny: Tiny, repack: str) -> None:
    data = tiny.data()
    data.setup()
    blocks, file = data.blocks("train"), tiny.folder / "scored.safetensors"
    stored = EntropyStore.temporary(len(blocks), 16, blocks.fingerprint, tiny.folder)
    # The larger the id of a token, the larger its entropy.
    for block in range(len(blocks)):
        stored.record(torch.tensor([block]), blocks[block]["input_ids"][None] / 100)
    stored.save(file)
    method = EntroDrop(0.5, 1.0, replacement="zero", entropy_source="reference")
    settings: dict[str, Any] = {"reference": str(file), "data": {"repack": repack}}
    [first, _] = seen(tiny, 0.9, method, model=True, **settings)
    batch, dropped = first.selected.batch, first.effects[0].dropped
    ids, documents = batch["input_ids"].numpy(), batch["document_ids"].numpy()
    # Neither EOS and padding, which have the lowest ids, nor first tokens are ever dropped.
    eligible = (ids > 1) & (np.diff(documents, axis=1, prepend=-1) == 0)
    for row, chosen, among in zip(ids, dropped, eligible, strict=True):
        assert chosen.sum() == among.sum() // 2 > 0
        assert row[chosen].max() <= row[among & ~chosen].min()


def test_what_cannot_run_keeps_the_draws_of_the_others(tiny: Tiny) -> None:
    replaced = [
        seen(tiny, 0.5, *each, model=False)[0].effects[-1]
        for each in (
            [HoldoutLossSelection(), TokenReplacement(0.5, "unigram_token")],
            [EntroDrop(), TokenReplacement(0.5, "unigram_token")],
            [TokenReplacement(0.5, "unigram_token")],
        )
    ]
    assert [each.name for each in replaced] == 3 * ["token_replacement"]
    np.testing.assert_array_equal(replaced[0].new_ids, replaced[1].new_ids)
    assert (replaced[0].new_ids != replaced[2].new_ids).any()


def test_losses_are_weighted_after_the_pass(tiny: Tiny) -> None:
    [first, _] = seen(tiny, 0.5, Focal(2.0), model=True)
    ratio, entropy = first.effects[0].loss, first.entropy
    counts = first.selected.batch["labels"].numpy() != -100
    assert ((ratio[counts] > 0) & (ratio[counts] < 1)).all()
    assert np.isnan(ratio[~counts]).all()
    assert np.isfinite(entropy[counts]).all()
    assert seen(tiny, 0.5, Focal(2.0), model=False)[0].effects == []
