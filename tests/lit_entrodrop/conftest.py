from pathlib import Path

import pytest

from tests.helpers.tiny import Tiny, build_tokenizer, texts, write_corpus


@pytest.fixture(scope="session")
def tiny_tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_tokenizer(tmp_path_factory.mktemp("tiny_tokenizer"))


@pytest.fixture(scope="session")
def mask_tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_tokenizer(tmp_path_factory.mktemp("mask_tokenizer"), mask=True)


@pytest.fixture
def tiny(tmp_path: Path, tiny_tokenizer: Path) -> Tiny:
    return Tiny(tmp_path, tiny_tokenizer, write_corpus(tmp_path / "corpus.jsonl", texts(60)))
