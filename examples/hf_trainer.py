"""Train a tiny Llama with EntroDrop in ``transformers.Trainer``; CPU, offline, under a minute."""

from pydoc_data.topics import topics
from tempfile import TemporaryDirectory
from typing import Any

import torch
from transformers import LlamaConfig, LlamaForCausalLM, TrainingArguments

import regularizers as reg
from regularizers.integrations import RegularizedTrainer

BLOCKS, LENGTH = 64, 64


def read_blocks() -> list[dict[str, Any]]:
    """Split the text into blocks of bytes."""
    text = "\n".join(topics.values()).encode()[: BLOCKS * LENGTH]
    ids = torch.tensor(list(text)).view(BLOCKS, LENGTH)
    return [{"input_ids": row, "labels": row} for row in ids]


def main() -> None:
    """Train for a few epochs."""
    torch.manual_seed(0)
    sizes: dict[str, Any] = {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2}
    model = LlamaForCausalLM(LlamaConfig(vocab_size=256, num_attention_heads=4, **sizes))
    settings: dict[str, Any] = {"num_train_epochs": 8, "learning_rate": 3e-3, "disable_tqdm": True}
    settings |= {"logging_steps": 8, "save_strategy": "no", "report_to": []}
    with TemporaryDirectory() as folder:
        RegularizedTrainer(
            model,
            TrainingArguments(folder, **settings),
            train_dataset=read_blocks(),
            regularizers=[
                reg.EntroDrop(curriculum=reg.Sigmoid(max=0.4)),
                reg.EmbeddingDropout(0.05),
            ],
            vocabulary=reg.Vocabulary(size=256),
        ).train()


if __name__ == "__main__":
    main()
