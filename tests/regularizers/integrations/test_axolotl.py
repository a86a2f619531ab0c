"""The plugin of Axolotl."""

from pathlib import Path
from typing import Any

import pytest
import torch
from datasets import Dataset
from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM, TrainingArguments

from regularizers import EntroDrop, Goldfish, Vocabulary
from regularizers.integrations import RegularizedTrainer
from regularizers.integrations.axolotl import RegularizersPlugin
from regularizers.integrations.batches import documents_of
from tests.helpers.tiny import LLAMA, build_tokenizer, texts

PLUGIN = "regularizers.integrations.axolotl.RegularizersPlugin"
CONFIG: dict[str, Any] = {
    "regularizers": [
        {"class_path": "EntroDrop", "init_args": {"curriculum": 0.7}},
        {"class_path": "regularizers.Goldfish", "init_args": {"context": 2}},
    ]
}


def tiny_llama() -> LlamaForCausalLM:
    torch.manual_seed(0)
    settings = {name: each for name, each in LLAMA.items() if name != "model_type"}
    return LlamaForCausalLM(LlamaConfig(**settings))


def test_masks_number_documents_where_positions_go_on() -> None:
    ids = torch.tensor([[5, 6, 7, 8, 9, 1, 1]])
    mask = torch.tensor([[1, 1, 2, 2, 2, 0, 0]])
    batch = {"input_ids": ids, "labels": ids, "attention_mask": mask}
    expected = [[0, 0, 1, 1, 1, -1, -1]]
    documents = documents_of({**batch, "position_ids": torch.arange(7)[None]}, Vocabulary(10))
    assert documents.tolist() == expected
    # Axolotl numbers the positions of padding too.
    restarted = torch.tensor([[0, 1, 0, 1, 2, 0, 1]])
    batch = {"input_ids": ids, "labels": ids.masked_fill(mask == 0, -100)}
    documents = documents_of({**batch, "position_ids": restarted}, Vocabulary(10, (0, 1)))
    assert documents.tolist() == expected


def test_config_gives_the_trainer_its_regularizers(tmp_path: Path) -> None:
    args = TrainingArguments(str(tmp_path), use_cpu=True, report_to=[])
    tokenizer = build_tokenizer(tmp_path)
    trainer = RegularizedTrainer(
        tiny_llama(), args, processing_class=AutoTokenizer.from_pretrained(tokenizer)
    )
    RegularizersPlugin().post_trainer_create(CONFIG, trainer)
    kinds = [type(each) for each in trainer._regularization.regularizers]
    assert kinds == [EntroDrop, Goldfish]


def test_axolotl_trains_packed_samples_with_the_plugin(tmp_path: Path) -> None:
    arguments = pytest.importorskip("axolotl.core.training_args", reason="needs Axolotl")
    from axolotl.integrations import base
    from axolotl.integrations.config import merge_input_args
    from axolotl.monkeypatch.data import batch_dataset_fetcher
    from axolotl.utils.collators import V2BatchSamplerDataCollatorForSeq2Seq
    from axolotl.utils.dict import DictDefault

    manager = base.PluginManager.get_instance()
    manager.register(PLUGIN)
    assert all("regularizers" in kind.model_fields for kind in merge_input_args())
    config = DictDefault(CONFIG)
    tokenizer = AutoTokenizer.from_pretrained(build_tokenizer(tmp_path))
    tokens = [tokenizer(text)["input_ids"] for text in texts(40)]
    columns = {
        "input_ids": tokens,
        "labels": tokens,
        "attention_mask": [[1] * len(each) for each in tokens],
        "position_ids": [list(range(len(each))) for each in tokens],
        "length": [len(each) for each in tokens],
    }
    args = arguments.AxolotlTrainingArguments(
        str(tmp_path),
        sample_packing=True,
        max_seq_length=64,
        per_device_train_batch_size=1,
        num_train_epochs=3,
        learning_rate=0.01,
        logging_steps=1,
        save_strategy="no",
        report_to=[],
        use_cpu=True,
    )
    collator = V2BatchSamplerDataCollatorForSeq2Seq(tokenizer)
    trainer = manager.get_trainer_cls(config)(
        model=tiny_llama(),
        args=args,
        train_dataset=Dataset.from_dict(columns),
        data_collator=collator,
        eval_data_collator=collator,
        processing_class=tokenizer,
    )
    manager.post_trainer_create(config, trainer)
    # As Axolotl does for packed samples.
    batch_dataset_fetcher.apply_multipack_dataloader_patch()
    try:
        trainer.train()
    finally:
        batch_dataset_fetcher.remove_multipack_dataloader_patch()
    logged = [entry for entry in trainer.state.log_history if "loss" in entry]
    assert logged[0]["entro_drop/drop_rate"] == 0
    # Packs differ from epoch to epoch; entropies are found by document.
    assert logged[-1]["entro_drop/drop_rate"] > 0.2
    assert logged[-1]["loss"] < logged[0]["loss"]
