from pathlib import Path

import pytest

from tests.helpers.tiny import Tiny, build_tokenizer, texts, write_corpus


@pytest.fixture(scope="session")
def tiny_tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_tokenizer(tmp_path_factory.mktemp("tiny_tokenizer"))


@pytest.fixture(scope="session")
def mask_tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_tokenizer(tmp_path_factory.mktemp("mask_tokenizer"), mask=True)


@pytest.fixture(scope="module")
def tiny_module(tmp_path_factory: pytest.TempPathFactory, tiny_tokenizer: Path) -> Tiny:
    """The same as `tiny`, for runs that several tests of a module share."""
    folder = tmp_path_factory.mktemp("tiny")
    return Tiny(folder, tiny_tokenizer, write_corpus(folder / "corpus.jsonl", texts(60)))


@pytest.fixture
def tiny(tmp_path: Path, tiny_tokenizer: Path) -> Tiny:
    return Tiny(tmp_path, tiny_tokenizer, write_corpus(tmp_path / "corpus.jsonl", texts(60)))
