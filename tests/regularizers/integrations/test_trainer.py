"""The Trainer of Transformers under regularizers: resume, ranks, evaluation, refusals."""

import os
import shutil
from collections.abc import Callable, Iterator
from itertools import repeat
from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate.state import AcceleratorState
from torch import Tensor
from torch.utils.data import IterableDataset
from transformers import LlamaConfig, LlamaForCausalLM, Trainer, TrainingArguments

from regularizers import (
    L2SP,
    EntroDrop,
    Flooding,
    Goldfish,
    HighEntropyExclusion,
    NEFTune,
    RDrop,
    ReferenceKL,
    Regularizer,
    Vocabulary,
    WaveBound,
)
from regularizers.integrations import RegularizedTrainer
from regularizers.integrations.batches import token_counts
from regularizers.integrations.callback import STATE_FILE, RegularizationCallback
from tests.helpers.processes import run_ranks, torchrun_environment
from tests.helpers.tiny import LLAMA

SETTINGS = {name: each for name, each in LLAMA.items() if name != "model_type"}
VOCABULARY = Vocabulary(LLAMA["vocab_size"], special_ids=(0, 1))


def rows(count: int = 12) -> list[dict[str, Tensor]]:
    """Return rows of two documents each, with positions that number their tokens."""
    generator = torch.Generator().manual_seed(1)
    positions = torch.cat([torch.arange(6), torch.arange(10)])
    ids = torch.randint(2, VOCABULARY.size, (count, 16), generator=generator)
    return [{"input_ids": row, "labels": row, "position_ids": positions} for row in ids]


def make(
    folder: Path, *regularizers: Any, model: dict[str, Any] | None = None, **settings: Any
) -> Any:
    torch.manual_seed(0)
    defaults: dict[str, Any] = {
        "num_train_epochs": 3,
        "per_device_train_batch_size": 2,
        "gradient_accumulation_steps": 2,
        "learning_rate": 0.01,
        "lr_scheduler_type": "constant",
        "logging_steps": 1,
        "save_strategy": "no",
        "report_to": [],
        "disable_tqdm": True,
        "use_cpu": True,
    }
    return RegularizedTrainer(
        LlamaForCausalLM(LlamaConfig(**SETTINGS, **(model or {}))),
        TrainingArguments(str(folder), **{**defaults, **settings}),
        train_dataset=rows(),
        eval_dataset=rows(4),
        vocabulary=VOCABULARY,
        regularizers=regularizers,
    )


def losses(trainer: Any) -> list[float]:
    return [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]


def test_a_run_resumed_within_an_epoch_has_the_losses_of_the_whole(tmp_path: Path) -> None:
    def trainer(folder: Path) -> Any:
        chosen = EntroDrop(curriculum=0.5, scope="corpus"), RDrop(), L2SP(0.1), Flooding(level=None)
        each: dict[str, Any] = {"save_strategy": "steps", "save_steps": 5, "eval_strategy": "steps"}
        dropout = {"attention_dropout": 0.1}
        return make(folder, *chosen, model=dropout, eval_steps=2, **each)

    whole = trainer(tmp_path / "whole")
    whole.train()
    assert any(entry.get("entro_drop/drop_rate", 0) > 0 for entry in whole.state.log_history)
    shutil.copytree(tmp_path / "whole/checkpoint-5", tmp_path / "resumed/checkpoint-5")
    resumed = trainer(tmp_path / "resumed")
    resumed.train(resume_from_checkpoint=True)
    assert losses(resumed) == losses(whole)
    assert resumed.state.global_step == 9
    for name, parameter in whole.model.named_parameters():
        assert torch.equal(parameter, resumed.model.get_parameter(name)), name
    # Without the entropies that the first epoch recorded, the rest differs.
    shutil.copytree(tmp_path / "whole/checkpoint-5", tmp_path / "other/checkpoint-5")
    (tmp_path / "other/checkpoint-5" / STATE_FILE).unlink()
    other = trainer(tmp_path / "other")
    with pytest.warns(UserWarning, match=f"expected {STATE_FILE}"):
        other.train(resume_from_checkpoint=True)
    assert losses(other) != losses(whole)


# Without random numbers, which differ from rank to rank.
def deterministic() -> list[Regularizer]:
    return [
        EntroDrop(curriculum=1.0, replacement="zero"),
        Goldfish(0.4, context=2),
        HighEntropyExclusion(0.3),
    ]


def train_as_rank(rank: int, folder: Path) -> None:
    os.environ |= torchrun_environment(rank, 2)
    # The process that was forked may have trained alone.
    AcceleratorState._reset_state(reset_partial_state=True)
    trainer = make(folder / "run", *deterministic(), per_device_train_batch_size=1)
    trainer.train()
    if rank == 0:
        weights = {name: each.detach() for name, each in trainer.model.named_parameters()}
        torch.save((losses(trainer), weights), folder / "ranks.pt")


def test_two_ranks_train_as_one_process_does(tmp_path: Path) -> None:
    alone = make(tmp_path / "alone", *deterministic())
    alone.train()
    run_ranks(train_as_rank, tmp_path, tmp_path)
    found, weights = torch.load(tmp_path / "ranks.pt", weights_only=True)
    assert found == pytest.approx(losses(alone), rel=1e-5)
    for name, parameter in alone.model.named_parameters():
        torch.testing.assert_close(weights[name], parameter.detach(), rtol=1e-3, atol=1e-4)


def test_evaluation_is_that_of_the_trainer(tmp_path: Path) -> None:
    ours = make(tmp_path, EntroDrop(curriculum=1.0), Goldfish(0.9, context=2))
    plain = Trainer(ours.model, ours.args, eval_dataset=ours.eval_dataset)
    assert ours.evaluate()["eval_loss"] == plain.evaluate()["eval_loss"]


REFUSED: dict[str, tuple[Callable[[], list[Regularizer]], dict[str, Any], str]] = {
    "smoothing": (lambda: [Goldfish()], {"label_smoothing_factor": 0.1}, "LabelSmoothing"),
    "noise": (lambda: [NEFTune()], {"neftune_noise_alpha": 5}, "one source of noise"),
    "compile": (lambda: [NEFTune()], {"torch_compile": True}, "torch_compile=False"),
    "teacher": (lambda: [WaveBound()], {}, "a teacher, which only"),
    "reference": (lambda: [ReferenceKL()], {}, "pass reference_model"),
    "dropout": (lambda: [RDrop()], {}, "set attention_dropout"),
    "evaluation": (lambda: [Flooding()], {}, "set eval_strategy"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_work_is_refused_with_a_remedy(case: str, tmp_path: Path) -> None:
    chosen, settings, message = REFUSED[case]
    with pytest.raises(ValueError, match=message):
        make(tmp_path, *chosen(), **settings)


class Endless(IterableDataset[dict[str, list[int]]]):
    def __iter__(self) -> Iterator[dict[str, list[int]]]:
        return repeat({"input_ids": [1, 2, 3]})


def test_a_stream_is_refused_if_its_tokens_must_be_counted(tmp_path: Path) -> None:
    model = LlamaForCausalLM(LlamaConfig(**SETTINGS))
    args = TrainingArguments(str(tmp_path), use_cpu=True, report_to=[], max_steps=1)
    drop = EntroDrop(replacement="unigram_token", curriculum=1.0)
    settings: dict[str, Any] = {"vocabulary": VOCABULARY, "train_dataset": Endless()}
    with pytest.raises(ValueError, match="pass a dataset with a length, not a stream"):
        RegularizedTrainer(model, args, regularizers=[drop], **settings)


@pytest.mark.parametrize("token", [-100, 3])
def test_tokens_outside_of_the_vocabulary_are_not_counted(token: int) -> None:
    with pytest.raises(ValueError, match=f"token ids from 0 to 2 in train_dataset, got {token}"):
        token_counts([{"input_ids": [2]}, {"input_ids": [0, token]}], 3)


def test_a_model_that_is_made_anew_keeps_its_penalties(tmp_path: Path) -> None:
    def model() -> LlamaForCausalLM:
        return LlamaForCausalLM(LlamaConfig(**SETTINGS))

    given = make(tmp_path, L2SP(0.1), max_steps=3)
    settings: dict[str, Any] = {"vocabulary": VOCABULARY, "train_dataset": given.train_dataset}
    made = RegularizedTrainer(
        None, given.args, model_init=model, regularizers=[L2SP(0.1)], **settings
    )
    made.train()
    penalties = [each["l2_sp/penalty"] for each in made.state.log_history[:-1]]
    assert penalties[0] == 0 < penalties[1]


@pytest.mark.parametrize(
    "content", [None, {"model.weight": torch.zeros(2)}, torch.zeros(2), [1, 2], "text"]
)
def test_a_broken_or_another_state_is_refused(content: Any, tmp_path: Path) -> None:
    trainer = make(tmp_path, Goldfish())
    [callback] = [
        each
        for each in trainer.callback_handler.callbacks
        if isinstance(each, RegularizationCallback)
    ]
    (tmp_path / STATE_FILE).touch()
    if content is not None:
        torch.save(content, tmp_path / STATE_FILE)
    callback.resume_from(tmp_path, None)
    with pytest.raises(ValueError, match=r"regularizers\.pt, got (another|a damaged) file"):
        callback.on_train_begin(trainer.args, trainer.state, trainer.control)


def test_a_model_without_logits_is_refused(tmp_path: Path) -> None:
    trainer = make(tmp_path, Goldfish(), remove_unused_columns=False)
    forward = trainer.model.forward

    def fused(**inputs: Any) -> Any:
        return forward(**{**inputs, "logits_to_keep": 1})

    trainer.model.forward = fused
    with pytest.raises(ValueError, match="turn off fused losses"):
        trainer.train()


def test_missing_tokenizer_is_refused(tmp_path: Path) -> None:
    model = LlamaForCausalLM(LlamaConfig(**SETTINGS))
    args = TrainingArguments(str(tmp_path), use_cpu=True, report_to=[])
    with pytest.raises(ValueError, match="expected processing_class or vocabulary"):
        RegularizedTrainer(model, args, regularizers=[Goldfish()])
