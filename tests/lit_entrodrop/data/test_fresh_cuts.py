"""Runs whose blocks are cut anew in each epoch."""

import json
from collections import Counter
from pathlib import Path
from typing import Any

import lightning as L
import numpy as np
import pytest
import torch

from lit_entrodrop.commands.verify_resume.differences import Comparison
from lit_entrodrop.data.orders import LearnFocusReview
from lit_entrodrop.runs.checkpoints.reading import read_all
from lit_entrodrop.runs.metrics_file import FILE_NAME as METRICS
from regularizers import EntroDrop
from tests.helpers.processes import run_cli_ranks
from tests.helpers.tiny import Tiny, texts, write_corpus

SETTINGS = ["--data.repack=epoch", "--trainer.max_epochs=3", "--data.batch_size=2"]
REPLAY = "--data.replay={corpus: %s, share: 0.2, regularize: false}"
ENTRODROP = ["--model.regularizers+=EntroDrop", "--model.regularizers.curriculum=0.8"]


class Readings(L.Callback):
    """Writes down which tokens count in each epoch, and their stored entropies."""

    def on_train_batch_start(
        self, trainer: L.Trainer, pl_module: Any, batch: Any, batch_idx: int
    ) -> None:
        counted = (batch["labels"] >= 0) & ~batch["unregularized"][:, None]
        row = {"labels": batch["token_index"][counted].tolist(), "global_step": trainer.global_step}
        if "entropy" in batch:
            row["known"] = int((~batch["entropy"][counted].isnan()).sum())
        file = Path(trainer.default_root_dir) / f"{trainer.current_epoch}-{trainer.global_rank}"
        with file.open("a") as rows:
            rows.write(json.dumps(row) + "\n")


WRITTEN = [f"--trainer.callbacks+={__name__}.Readings"]


def read(folder: Path, epoch: int, ranks: int = 1) -> list[dict[str, Any]]:
    files = [folder / f"{epoch}-{rank}" for rank in range(ranks)]
    return [json.loads(row) for file in files for row in file.read_text().splitlines()]


@pytest.fixture(scope="module")
def long(tiny_module: Tiny) -> Tiny:
    """A corpus of texts, most of them longer than a block, and general text."""
    write_corpus(tiny_module.corpus, texts(24, longest=60))
    write_corpus(tiny_module.folder / "general.jsonl", texts(9, seed=1))
    return tiny_module


@pytest.fixture(scope="module")
def settings(long: Tiny) -> list[str]:
    return [*SETTINGS, *ENTRODROP, REPLAY % (long.folder / "general.jsonl")]


@pytest.fixture(scope="module")
def whole(long: Tiny, settings: list[str]) -> Path:
    return long.run("fit", *settings, *WRITTEN, root="whole")


def test_each_epoch_counts_each_label_once(whole: Path) -> None:
    cuts, steps = set[frozenset[int]](), Counter[int]()
    everything = set(range(max(max(row["labels"]) for row in read(whole, 0)) + 1))
    for epoch in range(3):
        rows = read(whole, epoch)
        labels = [token for row in rows for token in row["labels"]]
        assert len(labels) == len(set(labels))
        # The first tokens of chunks are no labels.
        cuts.add(frozenset(everything - set(labels)))
        steps[len(rows)] += 1
        known = sum(row["known"] for row in rows)
        assert known == 0 if epoch == 0 else 0.9 * len(labels) < known < len(labels)
    assert len(cuts) == 3
    assert len(steps) == 1, "epochs have the same number of batches"


def test_workers_and_a_kill_within_an_epoch_change_no_bit(
    long: Tiny, settings: list[str], whole: Path
) -> None:
    per_epoch = len(read(whole, 0))
    place = {"step": per_epoch + per_epoch // 2, "phase": "batch_end"}
    killed = ["--trainer.callbacks+=tests.helpers.killing.KillAt"]
    killed += [f"--trainer.callbacks.{name}={value}" for name, value in place.items()]
    arguments = ["fit", *long.config(), *settings, "--ckpt_path=last"]
    arguments += [f"--trainer.default_root_dir={long.folder / 'killed'}", "--data.num_workers=1"]
    arguments += [f"--checkpoints.every_n_train_steps={per_epoch + 1}"]
    for last in (killed, []):
        [rank] = run_cli_ranks(*arguments, *last, folder=long.folder, world_size=1)
        assert rank.returncode == (-9 if last else 0), rank.stdout
    resumed = long.folder / "killed"
    assert (resumed / METRICS).read_text() == (whole / METRICS).read_text()
    comparison = Comparison()
    comparison.compare(*(read_all(run / "checkpoints/last.ckpt") for run in (whole, resumed)))
    assert comparison.tensors > 50
    # Lightning starts the loop anew at each validation.
    names = [each.name for each in comparison.differences if ".val_loop." not in each.name]
    assert names == ["datamodule_hyper_parameters.num_workers"]


def test_two_ranks_read_what_one_reads(long: Tiny, settings: list[str], whole: Path) -> None:
    arguments = [*settings, *WRITTEN, "--data.batch_size=1", "--model.memorization=null"]
    two = long.run_ranks("fit", *arguments, root="two")
    for epoch in range(3):
        one = read(whole, epoch)
        shares = [read(two, epoch, 2)[rank * len(one) : (rank + 1) * len(one)] for rank in (0, 1)]
        for row, first, second in zip(one, *shares, strict=True):
            assert row["labels"] == first["labels"] + second["labels"]
            assert row["known"] == first["known"] + second["known"]


def test_reference_entropies_are_found_by_token(long: Tiny) -> None:
    module = long.module(EntroDrop(curriculum=0.8, entropy_source="reference"))
    data = long.data(repack="epoch")
    long.trainer(max_epochs=2).fit(module, datamodule=data)
    store, blocks = module.entropies.stores["train"], data.blocks("train")
    tokens = torch.arange(len(blocks.tokens))
    unknown = np.flatnonzero(store.lookup(tokens).isnan())
    assert unknown.tolist() == sorted(blocks.chunks.starts.tolist())


def test_resume_without_fresh_cuts_is_refused(long: Tiny, whole: Path) -> None:
    path = str(whole / "checkpoints/last.ckpt")
    data = long.data(batch_size=2)
    with pytest.raises(ValueError, match=r"data\.repack: expected epoch, as in .*, got never: "):
        long.trainer(max_epochs=4).fit(long.module(), datamodule=data, ckpt_path=path)


def test_orders_by_loss_are_refused(long: Tiny) -> None:
    with pytest.raises(ValueError, match=r"data\.repack: .*: remove LearnFocusReview from data"):
        long.data(repack="epoch", order=LearnFocusReview())
    with pytest.raises(ValueError, match=r"data\.repack: expected never or epoch, got 'often'"):
        long.data(repack="often")
