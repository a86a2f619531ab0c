import json
import math
from typing import Any

import numpy as np
import pytest
import torch

from lit_entrodrop.data import TextDataModule
from lit_entrodrop.entropy.provider import EntropyProvider
from lit_entrodrop.entropy.score_cache import cached_store_path
from lit_entrodrop.model.building import build_causal_lm
from regularizers import Requirements
from tests.helpers.processes import run_ranks
from tests.helpers.tiny import LLAMA, Tiny, texts
from tests.lit_entrodrop.entropy.conftest import RankData, build


def last_epoch(tiny: Tiny) -> EntropyProvider:
    requirements = Requirements(entropy="last_epoch")
    return EntropyProvider(requirements, None, str(tiny.folder / "cache"))


def test_edges_cut_the_validation_tokens_into_thirds(tiny: Tiny, data: TextDataModule) -> None:
    entropies = EntropyProvider(Requirements(), None, str(tiny.folder / "cache"))
    # Weights this large spread the entropies, so that data precision makes few ties.
    spread = build_causal_lm(tiny.lm(architecture={**LLAMA, "initializer_range": 1.0}))
    entropies.prepare(data, spread, None)
    known = entropies.stores["validation"].values
    known = known[~known.isnan()]
    assert entropies.edges is not None
    shares = [(known.float() <= edge).float().mean().item() for edge in entropies.edges]
    assert shares == pytest.approx([1 / 3, 2 / 3], abs=0.1)
    assert set(entropies.stores) == {"validation", "clean_train"}
    assert entropies.of_inputs({}, build(tiny)) is None


def test_edges_cut_the_labels_and_not_the_prompts(tiny: Tiny) -> None:
    asked = zip(texts(40, seed=1), texts(40, seed=2), strict=True)
    rows = [{"prompt": prompt, "completion": answer} for prompt, answer in asked]
    path = tiny.folder / "asked.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    data = tiny.data(corpus=str(path), validation=0.5)
    data.setup()
    entropies = EntropyProvider(Requirements(), None, str(tiny.folder / "cache"))
    spread = build_causal_lm(tiny.lm(architecture={**LLAMA, "initializer_range": 1.0}))
    entropies.prepare(data, spread, None)
    blocks, values = data.blocks("validation"), entropies.stores["validation"].values
    labels = np.stack([blocks[n]["labels"].numpy() >= 0 for n in range(len(blocks))])
    expected = np.quantile(values.numpy()[labels], [1 / 3, 2 / 3], method="nearest")
    assert entropies.edges is not None
    np.testing.assert_allclose(entropies.edges, expected, atol=0.05)


def test_restored_entropies_of_other_blocks_are_refused(tiny: Tiny, data: TextDataModule) -> None:
    entropies = EntropyProvider(
        Requirements(entropy="last_epoch"), None, str(tiny.folder / "cache")
    )
    entropies.prepare(data, build(tiny), None)
    other = tiny.data(block_size=32)
    other.setup()
    resumed = last_epoch(tiny)
    resumed.load_state_dict(entropies.state_dict())
    with pytest.raises(ValueError, match="entropies: expected those of the blocks"):
        resumed.prepare(other, build(tiny), None)


def test_limits_of_evaluation_apply_to_its_scoring(tiny: Tiny) -> None:
    settings = {"test": 0.3, "batch_size": 2}

    def fitted(**limits: Any) -> dict[str, int]:
        module, data = tiny.module(), tiny.data(**settings)
        trainer = tiny.trainer(max_epochs=1, limit_train_batches=1, **limits)
        trainer.fit(module, datamodule=data)
        assert ("val/loss_low_entropy" in trainer.callback_metrics) == bool(module.entropies.stores)
        trainer.save_checkpoint(tiny.folder / "limited.ckpt")
        return {split: int(store.known.sum()) for split, store in module.entropies.stores.items()}

    # Lightning rounds a share of the batches down.
    assert fitted(limit_val_batches=0, limit_test_batches=0) == {}
    limited = fitted(limit_val_batches=1, limit_test_batches=0.5)
    data = tiny.data(**settings)
    data.setup()
    batches = math.ceil(data.num_blocks("test") / 2)
    assert limited == {"validation": 2, "clean_train": 2, "test": batches // 2 * 2}
    with pytest.warns(UserWarning, match=r"entropies of \d+ validation blocks .* are unknown"):
        tiny.trainer().validate(
            tiny.module(), tiny.data(**settings), tiny.folder / "limited.ckpt", weights_only=True
        )
    # What was scored is kept, and completed.
    whole = fitted()
    assert whole["validation"] == data.num_blocks("validation") > 2


def record_on_rank(rank: int, tiny: Tiny, data: TextDataModule) -> None:
    entropies = EntropyProvider(
        Requirements(entropy="last_epoch"), None, str(tiny.folder / "cache")
    )
    entropies.prepare(data, build(tiny), None)
    blocks = torch.arange(rank, 8, 2)
    entropies.record({"block_id": blocks}, torch.full((4, 16), 1.0 + rank))
    torch.save(entropies.state_dict()["train"]["values"], tiny.folder / f"rank{rank}.pt")


def test_checkpoint_within_an_epoch_holds_the_entropies_of_every_rank(tiny: Tiny) -> None:
    data = RankData(**tiny.data().hparams)
    data.setup()
    run_ranks(record_on_rank, tiny.folder, tiny, data)
    for rank in (0, 1):
        values = torch.load(tiny.folder / f"rank{rank}.pt")
        assert values[:8, 5].tolist() == [1, 2] * 4
        assert values[8:].isnan().all()


def test_last_epoch_leaves_no_file(tiny: Tiny, data: TextDataModule) -> None:
    entropies = EntropyProvider(
        Requirements(entropy="last_epoch"), None, str(tiny.folder / "cache")
    )
    entropies.prepare(data, build(tiny), None)
    evaluated = {
        cached_store_path(tiny.folder / "cache", build(tiny), data.fingerprint(split))
        for split in ("validation", "clean_train")
    }
    assert set((tiny.folder / "cache/entropy").iterdir()) == evaluated
