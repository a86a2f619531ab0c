"""The smallest real parts of a run: tokenizer, corpus, model, data, trainer, commands."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

import lightning as L
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from lit_entrodrop.cli.main import main
from lit_entrodrop.data import TextDataModule
from lit_entrodrop.model.config import LMConfig
from lit_entrodrop.training.module import LitCausalLM
from lit_entrodrop.training.optim import AdamW, LRSchedule
from regularizers import Regularizer
from tests.helpers.processes import describe_ranks, run_cli_ranks

CONFIGS = Path(__file__).parents[2] / "configs"
VOCABULARY_SIZE = 320
LLAMA: dict[str, Any] = {
    "model_type": "llama",
    "vocab_size": VOCABULARY_SIZE,
    "hidden_size": 16,
    "intermediate_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "max_position_embeddings": 64,
    "initializer_range": 0.1,
    "tie_word_embeddings": True,
    "bos_token_id": None,
    "eos_token_id": 0,
    "pad_token_id": 1,
}
WORDS = [
    "acute",
    "renal",
    "fever",
    "and",
    "a",
    "mild",
    "cough",
    "of",
    "the",
    "heart",
    "with",
    "pain",
    "in",
    "two",
    "or",
    "three",
    "weeks",
]


def texts(count: int, seed: int = 0, longest: int = 12) -> list[str]:
    """Make distinct documents of uneven lengths."""
    random = Random(seed)
    return [
        f"{number} " + " ".join(random.choices(WORDS, k=random.randint(2, longest)))
        for number in range(count)
    ]


def write_corpus(path: Path, documents: Sequence[str]) -> Path:
    """Write documents as JSON lines."""
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in documents))
    return path


def build_tokenizer(folder: Path, size: int = VOCABULARY_SIZE, mask: bool = False) -> Path:
    """Train a byte-level BPE tokenizer and save it."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    special = ["</s>", "<pad>", *(["<mask>"] if mask else [])]
    trainer = trainers.BpeTrainer(
        vocab_size=size,
        special_tokens=special,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts(300), trainer)
    roles = {"eos_token": "</s>", "pad_token": "<pad>"}
    if mask:
        roles["mask_token"] = "<mask>"
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, **roles).save_pretrained(folder)
    return folder


def save_llama(folder: Path, **settings: Any) -> Path:
    """Save a model with random weights as a folder of Transformers, without a tokenizer."""
    torch.manual_seed(0)
    entries = {name: each for name, each in LLAMA.items() if name != "model_type"}
    LlamaForCausalLM(LlamaConfig(**{**entries, **settings})).save_pretrained(folder)
    return folder


@dataclass
class Tiny:
    """A folder with a tokenizer and a corpus, and all that a test needs around them."""

    folder: Path
    tokenizer: Path
    corpus: Path

    def lm(self, **settings: Any) -> LMConfig:
        """Describe a model with random weights."""
        defaults: dict[str, Any] = {"pretrained": None, "tokenizer": str(self.tokenizer)}
        if "pretrained" not in settings:
            defaults["architecture"] = LLAMA
        return LMConfig(**{**defaults, **settings})

    def data(self, **settings: Any) -> TextDataModule:
        """Make a data module."""
        defaults: dict[str, Any] = {
            "corpus": str(self.corpus),
            "tokenizer": str(self.tokenizer),
            "block_size": 16,
            "batch_size": 4,
            "validation": 0.2,
            "cache_dir": str(self.folder / "cache"),
        }
        return TextDataModule(**{**defaults, **settings})

    def module(self, *regularizers: Regularizer, **settings: Any) -> LitCausalLM:
        """Make a module whose initial weights are always the same."""
        L.seed_everything(settings.pop("weights", 0), verbose=False)
        defaults: dict[str, Any] = {
            "lm": self.lm(**settings.pop("lm", {})),
            "optimizer": lambda params: AdamW(params, lr=0.01),
            "lr_schedule": LRSchedule(warmup=2),
            "cache_dir": str(self.folder / "cache"),
        }
        return LitCausalLM(regularizers=regularizers, **{**defaults, **settings})

    def trainer(self, **settings: Any) -> L.Trainer:
        """Make a trainer that writes nothing unless told to."""
        defaults: dict[str, Any] = {
            "accelerator": "cpu",
            "devices": 1,
            "max_epochs": 2,
            "logger": False,
            "enable_progress_bar": False,
            "enable_model_summary": False,
            "enable_checkpointing": False,
            "num_sanity_val_steps": 0,
            "log_every_n_steps": 1,
            "default_root_dir": self.folder / "root",
        }
        return L.Trainer(**{**defaults, **settings})

    def config(self) -> list[str]:
        """Return the arguments that make a tiny run of the ready base config."""
        settings = {
            "trainer": {
                "accelerator": "cpu",
                "max_epochs": 2,
                "log_every_n_steps": 2,
                "enable_progress_bar": False,
            },
            "model": {
                "lm": {
                    "pretrained": None,
                    "architecture": LLAMA,
                    "tokenizer": str(self.tokenizer),
                },
                "optimizer": {
                    "class_path": "lit_entrodrop.training.optim.AdamW",
                    "init_args": {"lr": 0.01},
                },
            },
            "data": {
                "corpus": str(self.corpus),
                "block_size": 16,
                "batch_size": 4,
                "validation": 0.2,
                "cache_dir": str(self.folder / "cache"),
            },
        }
        path = self.folder / "tiny.yaml"
        path.write_text(json.dumps(settings))
        return ["--config", str(CONFIGS / "base.yaml"), "--config", str(path)]

    def run(self, command: str, *arguments: object, root: str = "run") -> Path:
        """Run a command of the program on the tiny config, and return its folder."""
        folder = self.folder / root
        place = ["--trainer.default_root_dir", str(folder)]
        main([command, *self.config(), *place, *map(str, arguments)])
        return folder

    def run_ranks(
        self,
        command: str,
        *arguments: object,
        root: str = "run",
        world_size: int = 2,
        status: int = 0,
    ) -> Path:
        """Run a command as :meth:`run` does, on several ranks, all of which end with a status."""
        folder = self.folder / root
        words = [command, *self.config(), "--trainer.default_root_dir", str(folder)]
        words += [*map(str, arguments), "--trainer.devices", str(world_size)]
        ranks = run_cli_ranks(*words, folder=self.folder, world_size=world_size)
        assert [rank.returncode for rank in ranks] == [status] * world_size, describe_ranks(ranks)
        return folder
