"""The Trainer of Transformers computes the losses of our LightningModule on the same batches."""

from collections.abc import Callable, Iterator
from typing import Any

import lightning as L
import pytest
import torch
from torch import Tensor
from torch.utils.data import Sampler
from transformers import LlamaForCausalLM, TrainingArguments, default_data_collator

from lit_entrodrop.model.loading import load_tokenizer
from lit_entrodrop.runs.metrics_file import MetricsFile, read_metrics
from lit_entrodrop.training.optim import LRSchedule
from regularizers import (
    L2SP,
    MIR,
    EntroDrop,
    Flooding,
    Focal,
    Goldfish,
    HighEntropyExclusion,
    Linear,
    RDrop,
    ReferenceKL,
    Regularizer,
    TokenReplacement,
)
from regularizers.integrations import RegularizedTrainer
from tests.helpers.tiny import Tiny, build_tokenizer, save_llama, texts, write_corpus

RATE, CLIP, STEPS = 0.5, 0.8, 10
COLUMNS = ("input_ids", "labels", "position_ids")

# By the hook or the pass that they need.
METHODS: dict[str, Callable[[], list[Regularizer]]] = {
    "embeddings, last epoch": lambda: [EntroDrop(curriculum=Linear(1.0))],
    "embeddings, corpus": lambda: [EntroDrop(curriculum=0.5, quantile=0.3, scope="corpus")],
    "input ids": lambda: [TokenReplacement(0.3)],
    "token ids by frequency": lambda: [TokenReplacement(0.3, replacement="unigram_token")],
    "weights before": lambda: [Goldfish(0.4, context=2)],
    "weights after": lambda: [HighEntropyExclusion(0.3)],
    "token loss and loss": lambda: [Focal(), Flooding(level=5.5)],
    "second pass": lambda: [MIR(kept_prefix=1)],
    "second pass, dropout": lambda: [RDrop()],
    "parameters": lambda: [L2SP(0.5), L2SP(0.5, decoupled=True)],
    "online entropy": lambda: [EntroDrop(curriculum=0.5, entropy_source="online")],
    "reference": lambda: [
        ReferenceKL(0.5),
        EntroDrop(curriculum=0.5, entropy_source="reference"),
    ],
}


class Batches(L.Callback):
    """Keeps the rows of each block, and the order of the blocks in each epoch."""

    def __init__(self) -> None:
        self.rows: dict[int, dict[str, Tensor]] = {}
        self.epochs: list[list[int]] = []

    def on_train_epoch_start(self, *_: Any) -> None:
        self.epochs.append([])

    def on_train_batch_start(
        self, trainer: L.Trainer, pl_module: Any, batch: Any, batch_idx: int
    ) -> None:
        for at, block in enumerate(batch["block_id"].tolist()):
            self.rows[block] = {name: batch[name][at].clone() for name in COLUMNS}
            self.epochs[-1].append(block)


class RecordedOrder(Sampler[int]):
    def __init__(self, epochs: list[list[int]]) -> None:
        self.epochs = epochs
        self.epoch = 0

    def __iter__(self) -> Iterator[int]:
        self.epoch += 1
        return iter(self.epochs[self.epoch - 1])

    def __len__(self) -> int:
        return len(self.epochs[0])


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Tiny:
    folder = tmp_path_factory.mktemp("tiny")
    save_llama(folder / "model", attention_dropout=0.2)
    tokenizer = build_tokenizer(folder / "tokenizer")
    return Tiny(folder, tokenizer, write_corpus(folder / "corpus.jsonl", texts(60)))


def losses_of_fit(tiny: Tiny, chosen: list[Regularizer], batches: Batches) -> list[float]:
    lm = {"pretrained": str(tiny.folder / "model"), "tokenizer": str(tiny.tokenizer)}
    module = tiny.module(
        *chosen,
        lm=lm,
        optimizer=lambda parameters: torch.optim.SGD(parameters, lr=RATE),
        lr_schedule=LRSchedule(warmup=0, decay="constant"),
        memorization=None,
    )
    folder = tiny.folder / "ours"
    trainer = tiny.trainer(
        max_epochs=3,
        accumulate_grad_batches=2,
        gradient_clip_val=CLIP,
        limit_val_batches=0,
        logger=MetricsFile(folder),
        callbacks=[batches],
    )
    trainer.fit(module, datamodule=tiny.data(max_train_tokens=400))
    losses: list[float] = read_metrics(folder)["train/loss"].dropna().tolist()
    return losses


def losses_of_trainer(tiny: Tiny, chosen: list[Regularizer], batches: Batches) -> list[float]:
    model = LlamaForCausalLM.from_pretrained(tiny.folder / "model")
    frozen = any(each.requirements.reference for each in chosen)
    args = TrainingArguments(
        str(tiny.folder / "theirs"),
        num_train_epochs=3,
        per_device_train_batch_size=4,
        gradient_accumulation_steps=2,
        max_grad_norm=CLIP,
        lr_scheduler_type="constant",
        logging_steps=1,
        save_strategy="no",
        report_to=[],
        disable_tqdm=True,
        use_cpu=True,
        seed=0,
    )
    trainer = RegularizedTrainer(
        model,
        args,
        train_dataset=[row for _, row in sorted(batches.rows.items())],
        data_collator=default_data_collator,
        processing_class=load_tokenizer(str(tiny.tokenizer)),
        optimizers=(torch.optim.SGD(model.parameters(), lr=RATE), None),
        regularizers=chosen,
        reference_model=LlamaForCausalLM.from_pretrained(tiny.folder / "model") if frozen else None,
    )
    order = RecordedOrder(batches.epochs)
    trainer._get_train_sampler = lambda *_: order
    trainer.train()
    return [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]


@pytest.mark.parametrize("hook", METHODS)
def test_first_ten_losses_are_equal(tiny: Tiny, hook: str) -> None:
    batches = Batches()
    ours = losses_of_fit(tiny, METHODS[hook](), batches)
    assert len(ours) >= STEPS
    assert len(batches.epochs[0]) % 8, "the last step of an epoch has fewer micro-batches"
    theirs = losses_of_trainer(tiny, METHODS[hook](), batches)
    assert theirs[:STEPS] == pytest.approx(ours[:STEPS], rel=1e-5)
