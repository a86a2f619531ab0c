"""Real tokenizers and small corpora for the data tests."""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from random import Random

import pytest
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerBase, PreTrainedTokenizerFast

from lit_entrodrop.data import TextDataModule
from lit_entrodrop.model.loading import load_tokenizer

WORDS = [
    "fever",
    "cough",
    "the",
    "patient",
    "shows",
    "acute",
    "renal",
    "pain",
    "after",
    "dose",
    "of",
    "two",
    "weeks",
    "and",
    "rest",
]


def sentence(random: Random, words: int) -> str:
    return " ".join(random.choices(WORDS, k=words)) + "."


def texts(count: int, seed: int = 0, longest: int = 60) -> list[str]:
    random = Random(seed)
    return [f"{n}: {sentence(random, random.randint(1, longest))}" for n in range(count)]


def write_jsonl(path: Path, rows: Sequence[Mapping[str, object]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def build_tokenizer(folder: Path, bos: bool = True, chat_template: str | None = None) -> Path:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=400,
        special_tokens=["<s>", "</s>", "<|end|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts(200), trainer)
    if bos:
        tokenizer.post_processor = processors.TemplateProcessing(
            single="<s> $A", special_tokens=[("<s>", tokenizer.token_to_id("<s>"))]
        )
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>", chat_template=chat_template
    )
    fast.save_pretrained(folder)
    return folder


@pytest.fixture(autouse=True, scope="session")
def one_thread() -> Iterator[None]:
    torch.set_num_threads(1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TOKENIZERS_PARALLELISM", "false")
        yield


@pytest.fixture(scope="session")
def tokenizer_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_tokenizer(tmp_path_factory.mktemp("tokenizer"))


@pytest.fixture(scope="session")
def tokenizer(tokenizer_folder: Path) -> PreTrainedTokenizerBase:
    return load_tokenizer(str(tokenizer_folder))


DataModuleFactory = Callable[..., TextDataModule]


@pytest.fixture
def datamodule(tmp_path: Path, tokenizer_folder: Path) -> DataModuleFactory:
    """Make a data module over `corpus.jsonl`, by default with 80 documents."""

    def make(**settings: object) -> TextDataModule:
        corpus = tmp_path / "corpus.jsonl"
        if "corpus" not in settings and not corpus.exists():
            write_jsonl(corpus, [{"text": text} for text in texts(80)])
        defaults: dict[str, object] = {
            "corpus": str(corpus),
            "tokenizer": str(tokenizer_folder),
            "block_size": 32,
            "batch_size": 4,
            "clean_train_blocks": 0,
            "cache_dir": str(tmp_path / "cache"),
        }
        return TextDataModule(**{**defaults, **settings})  # type: ignore[arg-type]

    return make
