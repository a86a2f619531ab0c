"""Inputs of all processes: a random Llama, a corpus of random numbers, its blocks, settings."""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import WhitespaceSplit
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedTokenizerFast

from lit_entrodrop.data import TextDataModule

TURNS_PER_EPOCH = 2


@dataclass
class Shape:
    """Sizes of model and batch, except the vocabulary; a Llama with tied embeddings.

    Args:
        hidden_size: Hidden size.
        layers: Number of transformer blocks.
        heads: Number of attention heads.
        block_size: Tokens per block.
        batch_size: Blocks per batch.
    """

    hidden_size: int = 256
    layers: int = 4
    heads: int = 4
    block_size: int = 256
    batch_size: int = 4


def prepare_training(
    work: Path, vocabulary: int, shape: Shape, turn: int, steps: int
) -> dict[str, Any]:
    """Write a Llama, the corpus, its blocks and the settings for all processes."""
    architecture = {
        "model_type": "llama",
        "vocab_size": vocabulary,
        "hidden_size": shape.hidden_size,
        "intermediate_size": shape.hidden_size * 11 // 4,
        "num_hidden_layers": shape.layers,
        "num_attention_heads": shape.heads,
        "num_key_value_heads": shape.heads,
        "max_position_embeddings": shape.block_size,
        "tie_word_embeddings": True,
    }
    return prepare_model(work, architecture, shape.block_size, shape.batch_size, turn, steps)


def prepare_model(
    work: Path,
    architecture: Mapping[str, Any],
    block_size: int,
    batch_size: int,
    turn: int,
    steps: int,
    device: str = "cpu",
) -> dict[str, Any]:
    """Write a random model, the corpus, its blocks and the settings for all processes.

    Args:
        work: Folder of the training.
        architecture: Configuration of Transformers, as in ``model.lm.architecture``.
        block_size: Tokens per block.
        batch_size: Blocks per batch.
        turn: Optimizer steps per turn.
        steps: Optimizer steps of all turns.
        device: Device of the training; weights are drawn on it.
    """
    vocabulary = architecture["vocab_size"]
    tokenizer = number_tokenizer(vocabulary)
    # Token ids of a real architecture may exceed a smaller vocabulary.
    ids = {name: getattr(tokenizer, name) for name in ("eos_token_id", "pad_token_id")}
    config = AutoConfig.for_model(**{**architecture, "bos_token_id": None, **ids})
    with torch.device(device):
        AutoModelForCausalLM.from_config(config).save_pretrained(work / "model")
    tokenizer.save_pretrained(work / "model")
    data: dict[str, Any] = {
        "block_size": block_size,
        "batch_size": batch_size,
        "corpus": str(work / "corpus.jsonl"),
    }
    batches = TURNS_PER_EPOCH * turn
    texts = number_texts(vocabulary, batches * batch_size, block_size - 1)
    lines = [json.dumps({"text": text}) for text in texts]
    Path(data["corpus"]).write_text("\n".join(lines))
    np.save(work / "blocks.npy", packed_blocks(data, str(work / "model"), str(work / "cache")))
    settings = {
        **data,
        "model": str(work / "model"),
        "blocks": str(work / "blocks.npy"),
        "cache": str(work / "cache"),
        "device": device,
        "turn": turn,
        "steps": steps,
        "epochs": math.ceil(steps / batches),
        "lr": 1e-4,
        "betas": [0.9, 0.95],
        "max_grad_norm": 1.0,
    }
    (work / "settings.json").write_text(json.dumps(settings, indent=2))
    return settings


def number_tokenizer(vocabulary: int) -> PreTrainedTokenizerFast:
    """Return a tokenizer of numbers; each number is the id of its token.

    >>> number_tokenizer(100)("7 12")["input_ids"]
    [7, 12]
    """
    special = {"<eos>": 0, "<pad>": 1}
    vocabulary_ids = {**special, **{str(number): number for number in range(2, vocabulary)}}
    tokenizer = Tokenizer(WordLevel(vocabulary_ids, unk_token="<eos>"))
    tokenizer.pre_tokenizer = WhitespaceSplit()
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, eos_token="<eos>", pad_token="<pad>", unk_token="<eos>"
    )


def number_texts(vocabulary: int, documents: int, length: int) -> list[str]:
    """Return documents of random numbers with a Zipf-like distribution."""
    numbers = np.arange(2, vocabulary)
    frequencies = 1.0 / (numbers + 10)
    drawn = np.random.default_rng(0).choice(
        numbers, (documents, length), p=frequencies / frequencies.sum()
    )
    return [" ".join(map(str, row)) for row in drawn]


def packed_blocks(
    data: Mapping[str, Any], tokenizer: str, cache_dir: str
) -> NDArray[np.integer[Any]]:
    """Return the blocks of our data module, ``[blocks, block_size]``, without padding."""
    module = TextDataModule(**data, tokenizer=tokenizer, cache_dir=cache_dir, validation=0)
    module.setup()
    dataset: Any = module.train_dataloader().dataset
    rows = [dataset[index] for index in range(len(dataset))]
    assert all((row["document_ids"] == 0).all() for row in rows), "a block is one document"
    return np.stack([row["input_ids"].numpy() for row in rows])
