"""Runs with replay: what regularizers see of it, what is logged, and what is refused."""

from typing import Any

import numpy as np
import pytest
import torch
from torch.nn.functional import cross_entropy

from lit_entrodrop.data.mixing import Replay
from lit_entrodrop.runs.metrics_file import MetricsFile, read_metrics
from lit_entrodrop.training.module import LitCausalLM
from regularizers import (
    ConfidencePenalty,
    EmbeddingDropout,
    EntroDrop,
    HoldoutLossSelection,
    LabelSmoothing,
    RandomTokenDropout,
    Regularizer,
)
from tests.helpers.tiny import Tiny, texts, write_corpus
from tests.lit_entrodrop.training.test_exact_resume import (
    ENDED,
    SETTINGS,
    assert_same_runs,
    kill_at,
    run_on,
)


@pytest.fixture
def replay(tiny: Tiny) -> dict[str, Any]:
    general = write_corpus(tiny.folder / "general.jsonl", texts(40, seed=5))
    return {"corpus": str(general), "share": 0.3}


def first_batch(tiny: Tiny, module: LitCausalLM, **settings: Any) -> dict[str, torch.Tensor]:
    data = tiny.data(**settings)
    tiny.trainer(max_steps=1).fit(module, datamodule=data)
    train, replay = data.mixture.sizes
    rows = data.mixture.rows(train, is_repacked=False)
    chosen = [rows[number] for number in (0, train + replay - 1, 1, train)]
    return torch.utils.data.default_collate(chosen)  # type: ignore[no-any-return]


@pytest.mark.parametrize(
    "regularizers",
    [
        [],
        [EntroDrop(curriculum=0.5, entropy_source="online"), EmbeddingDropout(0.3)],
        [ConfidencePenalty(0.3), RandomTokenDropout(target="loss", curriculum=0.5)],
        [LabelSmoothing(0.2)],
    ],
    ids=["none", "of inputs", "of the mean", "of tokens"],
)
def test_regularizers_see_replay_as_padding(
    tiny: Tiny, replay: dict[str, Any], regularizers: list[Regularizer]
) -> None:
    module = tiny.module(*regularizers)
    batch = first_batch(tiny, module, replay=Replay(**replay))
    assert batch["unregularized"].tolist() == [False, True, False, True]
    module.train()
    step = module.describe_step(batch, 0)
    _, loss, weight = module.regularized_loss(batch, step, module.regularizers)

    skipped = batch["unregularized"][:, None]
    padded = {
        **batch,
        "unregularized": torch.zeros(4, dtype=torch.bool),
        "labels": batch["labels"].masked_fill(skipped, -100),
        "document_ids": batch["document_ids"].masked_fill(skipped, -1),
    }
    alone = module.describe_step(padded, 0)
    _, regularized, regularized_weight = module.regularized_loss(padded, alone, module.regularizers)
    # The loss of replay, from the logits of the plain model, document by document.
    total = torch.zeros(())
    count = 0
    for row in (1, 3):
        for document in range(int(batch["document_ids"][row].max()) + 1):
            ids = batch["input_ids"][row][batch["document_ids"][row] == document][None]
            logits = module.causal_lm.unwrapped(ids).logits[0]
            total = total + cross_entropy(logits[:-1], ids[0, 1:], reduction="sum")
            count += ids.shape[1] - 1
    torch.testing.assert_close(loss, regularized + total, rtol=1e-5, atol=1e-4)
    assert weight == regularized_weight + count
    gradients = [
        torch.autograd.grad(each, list(module.causal_lm.parameters()), retain_graph=True)
        for each in (loss, regularized + total)
    ]
    torch.testing.assert_close(*gradients, rtol=1e-4, atol=1e-4)


def mean_losses(module: LitCausalLM, batches: Any, count: int) -> np.ndarray:
    """Return the mean loss of the labels of each source, from the logits of the plain model."""
    sums = np.zeros((2, count))
    for batch in batches:
        for ids, labels, documents, source in zip(
            *(batch[name] for name in ("input_ids", "labels", "document_ids", "source")),
            strict=True,
        ):
            for document in range(int(documents.max()) + 1):
                own = documents == document
                logits = module.causal_lm.unwrapped(ids[own][None]).logits[0]
                losses = cross_entropy(logits[:-1], labels[own][1:], reduction="none")
                sums[:, source] += losses.sum().item(), (labels[own][1:] != -100).sum().item()
    return sums[0] / sums[1]


def test_each_source_has_its_loss(tiny: Tiny, replay: dict[str, Any]) -> None:
    exam = write_corpus(tiny.folder / "exam.jsonl", texts(30, seed=3))
    data = tiny.data(
        corpus=[str(tiny.corpus), {"source": str(exam), "weight": 2.0}], replay=Replay(**replay)
    )
    module = tiny.module(optimizer=lambda params: torch.optim.SGD(params, lr=0.0))
    file = MetricsFile(tiny.folder)
    # One row for the whole epoch.
    trainer = tiny.trainer(max_epochs=1, logger=file, log_every_n_steps=1000)
    trainer.fit(module, datamodule=data)
    row = {name: value for each in file.rows for name, value in each.items()}
    with torch.no_grad():
        trained = mean_losses(module, data.train_dataloader(), 3)
        validated = mean_losses(module, data.val_dataloader()[0], 2)
    names = ["corpus", "exam", "replay"]
    assert [row[f"train/{name}_loss"] for name in names] == pytest.approx(list(trained), rel=1e-4)
    found = [row[f"val/{name}_loss"] for name in names[:2]]
    assert found == pytest.approx(list(validated), rel=1e-4)
    assert row["train/loss"] == pytest.approx(
        np.average(trained, weights=labels_read(data)), rel=1e-4
    )


def labels_read(data: Any) -> list[int]:
    counts = np.zeros(3)
    for batch in data.train_dataloader():
        np.add.at(counts, batch["source"].numpy(), (batch["labels"] != -100).sum(1).numpy())
    return counts.tolist()  # type: ignore[no-any-return]


def test_kill_within_an_epoch_changes_no_bit(tiny: Tiny, replay: dict[str, Any]) -> None:
    settings = f"--data.replay={{corpus: {replay['corpus']}, share: {replay['share']}}}"
    given = [settings, "--trainer.max_epochs=2", "--ckpt_path=last"]
    whole = tiny.run("fit", *SETTINGS, *given, root="whole")
    assert run_on(tiny, *given, *kill_at(9, "micro_batch"), root="killed") in ENDED
    assert_same_runs(tiny.run("fit", *SETTINGS, *given, root="killed"), whole)
    assert read_metrics(whole)["train/replay_loss"].notna().any()


@pytest.mark.parametrize(
    ("regularizer", "named"),
    [
        (EntroDrop(), "entropy_source online, .* got last_epoch"),
        (EntroDrop(entropy_source="reference"), "entropy_source online, .* got reference"),
        (HoldoutLossSelection(), "false, because a regularizer weights"),
    ],
)
def test_regularized_replay_needs_no_stored_values(
    tiny: Tiny, replay: dict[str, Any], regularizer: Regularizer, named: str
) -> None:
    data = tiny.data(replay=Replay(**replay, regularize=True), holdout=0.2)
    with pytest.raises(ValueError, match=f"data.replay.regularize: expected .*{named}"):
        tiny.trainer().fit(tiny.module(regularizer), datamodule=data)


def test_weights_do_not_go_with_entropies_of_the_last_epoch(tiny: Tiny) -> None:
    exam = write_corpus(tiny.folder / "exam.jsonl", texts(30, seed=3))
    data = tiny.data(corpus=[str(tiny.corpus), {"source": str(exam), "weight": 2.0}])
    with pytest.raises(ValueError, match=r"or remove the weights of data.corpus"):
        tiny.trainer().fit(tiny.module(EntroDrop()), datamodule=data)


def test_holdout_gains_skip_replay(tiny: Tiny, replay: dict[str, Any]) -> None:
    data = tiny.data(replay=Replay(**replay), holdout=0.2)
    module = tiny.module(HoldoutLossSelection())
    tiny.trainer(max_epochs=1).fit(module, datamodule=data)
    batch = module.holdout_gains.attach(next(iter(data.train_dataloader())))
    skipped = batch["unregularized"]
    assert skipped.any()
    assert batch["holdout_gain"][skipped].isnan().all()
    assert not batch["holdout_gain"][~skipped].isnan().all()
