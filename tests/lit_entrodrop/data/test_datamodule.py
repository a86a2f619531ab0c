import json
from hashlib import blake2b
from inspect import signature
from pathlib import Path
from typing import Any

import pytest
import torch
from jsonargparse import ArgumentParser
from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from torch import Tensor

from lit_entrodrop.data import TextDataModule
from lit_entrodrop.data.reading_options import ReadingOptions
from lit_entrodrop.data.sources import digest_corpus
from lit_entrodrop.data.tokenizing import digest_tokenizer
from tests.helpers.tiny import Tiny
from tests.lit_entrodrop.data.conftest import (
    DataModuleFactory,
    build_tokenizer,
    texts,
    write_jsonl,
)


class Recorder(LightningModule):
    """Record which blocks each rank and epoch sees, in a file of its own."""

    def __init__(self, folder: Path, reads_steps: bool = False) -> None:
        super().__init__()
        self.reads_steps = reads_steps
        self.folder = folder
        self.weight = torch.nn.Parameter(torch.zeros(()))

    def record(self, name: str, batch: dict[str, Tensor]) -> None:
        with (self.folder / f"{name}-{self.current_epoch}-{self.global_rank}").open("a") as file:
            file.write(json.dumps(batch["block_id"].tolist()) + "\n")

    def training_step(self, batch: dict[str, Tensor]) -> Tensor:
        self.record("train", batch)
        return self.weight * 1.0

    def validation_step(self, batch: dict[str, Tensor]) -> None:
        self.record("validation", batch)

    def predict_step(self, batch: dict[str, Tensor]) -> Tensor:
        return batch["block_id"]

    def configure_optimizers(self) -> torch.optim.Optimizer:
        if self.reads_steps:
            assert self.trainer.estimated_stepping_batches > 0
        return torch.optim.SGD(self.parameters(), lr=0.1)


def trainer(folder: Path, **settings: Any) -> Trainer:
    defaults: dict[str, Any] = {
        "accelerator": "cpu",
        "devices": 1,
        "logger": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
        "enable_checkpointing": False,
        "num_sanity_val_steps": 0,
        "default_root_dir": folder,
    }
    return Trainer(**{**defaults, **settings})


def recorded(folder: Path, name: str, epoch: int, rank: int = 0) -> list[list[int]]:
    lines = (folder / f"{name}-{epoch}-{rank}").read_text().splitlines()
    return [json.loads(line) for line in lines]


def flat(batches: list[list[int]]) -> list[int]:
    return [index for batch in batches for index in batch]


def ready(module: TextDataModule) -> TextDataModule:
    module.setup()
    return module


def folders(tmp_path: Path) -> set[str]:
    return {path.name for path in (tmp_path / "cache").iterdir()}


def test_summary_has_a_line_a_split(datamodule: DataModuleFactory) -> None:
    module = ready(datamodule(test=0.2))
    lines = module.summary().splitlines()
    assert [line.split(":")[0] for line in lines] == ["train", "validation", "test"]
    assert all(f"{module.num_blocks(line.split(':')[0]):,} blocks" in line for line in lines)
    assert sum(int(line.split()[1]) for line in lines) == 80


def test_summary_lists_files_that_are_not_read(
    datamodule: DataModuleFactory, tmp_path: Path
) -> None:
    folder = tmp_path / "texts"
    folder.mkdir()
    write_jsonl(folder / "a.jsonl", [{"text": text} for text in texts(40)])
    (folder / "notes.docx").write_text("no")
    for _ in ("written", "cached"):
        summary = ready(datamodule(corpus=str(folder))).summary()
        assert summary.splitlines()[-1].endswith(": notes.docx")


def test_command_line_sets_every_option_and_explains_it() -> None:
    parser = ArgumentParser(exit_on_error=False)
    parser.add_class_arguments(TextDataModule, "data")
    arguments = ["--data.corpus=[a.txt, b.txt]", "--data.tokenizer=t", "--data.validation=own.txt"]
    parsed = parser.parse_args([*arguments, "--data.test=0.2", "--data.max_train_tokens=900"])
    built = parser.instantiate(parsed).data
    assert built.hparams["corpus"] == ["a.txt", "b.txt"]
    assert (built.hparams["validation"], built.hparams["test"]) == ("own.txt", 0.2)
    assert built.hparams["max_train_tokens"] == 900
    explained = {action.dest for action in parser._actions if action.help}
    assert explained.issuperset(f"data.{name}" for name in signature(TextDataModule).parameters)


def test_hyperparameters_are_saved(datamodule: DataModuleFactory) -> None:
    assert datamodule(seed=7).hparams["seed"] == 7


def test_second_start_reads_the_cache(datamodule: DataModuleFactory, tmp_path: Path) -> None:
    first = ready(datamodule())
    [folder] = (tmp_path / "cache").iterdir()
    written = folder.stat()
    second = ready(datamodule())
    assert folder.stat() == written
    assert second.fingerprint("train") == first.fingerprint("train")
    assert second.summary() == first.summary()


def test_torn_cache_is_rebuilt(datamodule: DataModuleFactory, tmp_path: Path) -> None:
    fingerprint = ready(datamodule()).fingerprint("train")
    [tokens] = (tmp_path / "cache").glob("*/train/tokens.npy")
    tokens.write_bytes(tokens.read_bytes()[:-10])
    with pytest.warns(UserWarning, match="the cache .* is damaged"):
        assert ready(datamodule()).fingerprint("train") == fingerprint
    assert len(folders(tmp_path)) == 1


def test_cache_key_of_data_without_holdout_is_unchanged(
    datamodule: DataModuleFactory, tmp_path: Path
) -> None:
    module = datamodule(validation=0.2, test=0.1)
    named = ("block_size", "packing", "max_train_tokens", "split_seed")
    key = {
        "format": 7,
        "corpus": digest_corpus([module.hparams["corpus"]], ReadingOptions()),
        "own": digest_corpus([], ReadingOptions()),
        "held_out": [0.2, 0.1],
        "forgetting": [],
        "tokenizer": digest_tokenizer(module.tokenizer),
        **{name: module.hparams[name] for name in named},
    }
    ready(module)
    assert folders(tmp_path) == {blake2b(json.dumps(key).encode(), digest_size=16).hexdigest()}


def test_holdout_has_blocks_and_is_not_evaluated(datamodule: DataModuleFactory) -> None:
    module = ready(datamodule(holdout=0.2))
    assert module.num_blocks("holdout") > 0
    assert "holdout" not in module.evaluated
    assert module.summary().splitlines()[-1].startswith("holdout: ")
    assert ready(datamodule()).fingerprint("validation") == module.fingerprint("validation")
    with pytest.raises(ValueError, match=r"data\.holdout: expected .* set --data.holdout"):
        ready(datamodule()).blocks("holdout")


@pytest.mark.parametrize(
    "changed",
    [
        {"block_size": 16},
        {"packing": False},
        {"split_seed": 1},
        {"validation": 0.2},
        {"test": 0.2},
        {"holdout": 0.2},
        {"max_train_tokens": 300},
    ],
)
def test_changed_setting_rebuilds(
    datamodule: DataModuleFactory, tmp_path: Path, changed: dict[str, Any]
) -> None:
    before, after = ready(datamodule()), ready(datamodule(**changed))
    assert after.fingerprint("train") != before.fingerprint("train")
    assert len(folders(tmp_path)) == 2


def test_setting_that_does_not_matter_reads_the_cache(
    datamodule: DataModuleFactory, tmp_path: Path
) -> None:
    ready(datamodule())
    ready(datamodule(batch_size=1, num_workers=1, predict_split="train"))
    assert len(folders(tmp_path)) == 1


def test_changed_text_or_tokenizer_rebuilds(datamodule: DataModuleFactory, tmp_path: Path) -> None:
    fingerprints = [ready(datamodule()).fingerprint("train")]
    other = build_tokenizer(tmp_path / "other", bos=False)
    fingerprints.append(ready(datamodule(tokenizer=str(other))).fingerprint("train"))
    write_jsonl(tmp_path / "corpus.jsonl", [{"text": text} for text in texts(80, seed=1)])
    fingerprints.append(ready(datamodule()).fingerprint("train"))
    assert len(set(fingerprints)) == len(folders(tmp_path)) == 3


def test_training_order_is_a_function_of_seed_and_epoch(
    datamodule: DataModuleFactory, tmp_path: Path
) -> None:
    orders = []
    for run in ("first", "second"):
        (tmp_path / run).mkdir()
        trainer(tmp_path, max_epochs=2).fit(Recorder(tmp_path / run), datamodule=datamodule())
        orders.append([recorded(tmp_path / run, "train", epoch) for epoch in (0, 1)])
    blocks = list(range(ready(datamodule()).num_blocks("train")))
    assert orders[0] == orders[1]
    assert orders[0][0] != orders[0][1]
    assert all(sorted(flat(epoch)) == blocks for epoch in orders[0])
    assert flat(recorded(tmp_path / "first", "validation", 0)) == list(
        range(ready(datamodule()).num_blocks("validation"))
    )


@pytest.mark.parametrize("reads_steps", [False, True])
def test_run_stopped_within_an_epoch_resumes_with_the_next_batch(
    datamodule: DataModuleFactory, tmp_path: Path, reads_steps: bool
) -> None:
    for run in ("whole", "resumed", "checkpoints"):
        (tmp_path / run).mkdir()
    trainer(tmp_path, max_epochs=3).fit(Recorder(tmp_path / "whole"), datamodule=datamodule())
    steps = len(recorded(tmp_path / "whole", "train", 0)) + 2
    saved = tmp_path / "checkpoints" / "saved.ckpt"
    saving = ModelCheckpoint(saved.parent, saved.stem, every_n_train_steps=steps)
    stopped = trainer(tmp_path, max_steps=steps, callbacks=[saving], enable_checkpointing=True)
    stopped.fit(Recorder(tmp_path / "resumed"), datamodule=datamodule())
    trainer(tmp_path, max_epochs=3).fit(
        Recorder(tmp_path / "resumed", reads_steps), datamodule=datamodule(), ckpt_path=saved
    )
    for epoch in range(3):
        whole = recorded(tmp_path / "whole", "train", epoch)
        assert recorded(tmp_path / "resumed", "train", epoch) == whole


def test_two_ranks_partition_the_blocks(datamodule: DataModuleFactory, tmp_path: Path) -> None:
    two = trainer(tmp_path, devices=2, strategy="ddp_fork", max_epochs=1)
    two.fit(Recorder(tmp_path), datamodule=datamodule())
    module = ready(datamodule())
    for split in ("train", "validation"):
        ranks = [flat(recorded(tmp_path, split, 0, rank)) for rank in (0, 1)]
        assert len(ranks[0]) == len(ranks[1])
        seen = [index for rank in ranks for index in rank if index != -1]
        assert set(seen) == set(range(module.num_blocks(split)))
        assert len(seen) == len(set(seen))


@pytest.mark.parametrize("split", ["train", "validation"])
def test_prediction_reads_its_split_in_order(
    datamodule: DataModuleFactory, tmp_path: Path, split: str
) -> None:
    module = datamodule(predict_split=split)
    predicted = trainer(tmp_path).predict(Recorder(tmp_path), datamodule=module)
    assert predicted is not None
    assert [int(index) for batch in predicted for index in batch] == list(
        range(module.num_blocks(split))
    )


def test_fit_without_validation(datamodule: DataModuleFactory, tmp_path: Path) -> None:
    module = datamodule(validation=0.0)
    trainer(tmp_path, max_epochs=1).fit(Recorder(tmp_path), datamodule=module)
    assert module.num_blocks("validation") == 0
    with pytest.raises(ValueError, match=r"data.validation: expected .* set --data.validation"):
        module.fingerprint("validation")


def test_a_list_of_sources_and_two_processes(datamodule: DataModuleFactory, tmp_path: Path) -> None:
    text = tmp_path / "long.txt"
    text.write_text("\n\n".join(texts(300)))
    jsonl = write_jsonl(tmp_path / "own.jsonl", [{"prompt": "Pain?", "completion": " Rest."}] * 9)
    module = ready(datamodule(corpus=[str(text), str(jsonl)], validation=0.3, num_proc=2))
    assert module.num_blocks("train") > module.num_blocks("validation") > 0


def test_a_renamed_set_is_prepared_anew_and_can_be_requested(
    datamodule: DataModuleFactory, tmp_path: Path
) -> None:
    exam = str(write_jsonl(tmp_path / "exam.jsonl", [{"text": text} for text in texts(9, seed=1)]))
    for name in ("exam", "test_2"):
        module = ready(datamodule(evaluate={name: exam}))
        assert module.held_out == ["validation", name]
        module.check_requested(name)
        assert f"{name}: 9 documents" in module.summary()
    with pytest.raises(ValueError, match=r"expected one of train, .*, test_2, got 'exam'"):
        module.check_requested("exam")
    with pytest.raises(ValueError, match=r"data\.test: expected the share or corpus of a test"):
        module.check_requested("test")


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({"evaluate": {"exam": 0.1}}, ["data.evaluate.exam", "a separate corpus", "got 0.1"]),
        ({"block_size": 1}, ["block_size", "at least 2", "got 1"]),
        ({"batch_size": 0}, ["batch_size", "at least 1"]),
        ({"num_workers": -1}, ["num_workers"]),
        ({"max_train_tokens": 1}, ["max_train_tokens"]),
        ({"validation": 0.7, "test": 0.3}, ["less than 1", "0.7"]),
        ({"predict_split": "dev"}, ["train, validation, test", "'dev'"]),
    ],
)
def test_bad_setting_is_refused(
    datamodule: DataModuleFactory, settings: dict[str, Any], named: list[str]
) -> None:
    with pytest.raises(ValueError) as caught:  # noqa: PT011
        datamodule(**settings)
    assert all(part in str(caught.value) for part in named), caught.value


def test_use_before_setup_is_refused(datamodule: DataModuleFactory) -> None:
    with pytest.raises(RuntimeError, match=r"call setup\(\) first"):
        datamodule().num_blocks("train")


def test_missing_corpus_is_refused(datamodule: DataModuleFactory) -> None:
    with pytest.raises(FileNotFoundError, match=r"absent\.txt does not exist"):
        datamodule(corpus="absent.txt").setup()


@pytest.mark.parametrize("split", ["test", "validation"])
def test_a_missing_split_is_an_error_before_the_corpus_is_read(tiny: Tiny, split: str) -> None:
    data = tiny.data(corpus="no/such/corpus", validation=0.0)
    trainer = tiny.trainer()
    evaluate = {"test": trainer.test, "validation": trainer.validate}[split]
    with pytest.raises(ValueError, match=rf"data\.{split}: expected .* --data\.{split} 0\.1"):
        evaluate(tiny.module(), datamodule=data)
