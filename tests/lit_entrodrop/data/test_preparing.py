import json
from pathlib import Path

import pytest
from transformers import PreTrainedTokenizerBase

from lit_entrodrop.data.documents import Document
from lit_entrodrop.data.preparing import gather_documents, prepare_split
from tests.lit_entrodrop.data.conftest import texts, write_jsonl

DOCUMENTS = [Document("text", text) for text in texts(50)]


def corpus(path: Path, contents: list[str]) -> str:
    return str(write_jsonl(path, [{"text": content} for content in contents]))


def test_validation_may_have_its_own_corpus(tmp_path: Path) -> None:
    train, own = texts(20), texts(5, seed=1)
    paths = [corpus(tmp_path / "train.jsonl", train), corpus(tmp_path / "own.jsonl", own)]
    sides = gather_documents(paths[:1], {"validation": paths[1], "test": 0.0}, "text", split_seed=0)
    assert sides.keys() == {"train", "validation"}
    assert {document.content for document in sides["train"]} == set(train)
    assert [document.content for document in sides["validation"]] == own


def test_documents_shared_with_an_own_corpus_leave_training(tmp_path: Path) -> None:
    train, own = texts(20), texts(5)
    paths = [corpus(tmp_path / "train.jsonl", train), corpus(tmp_path / "own.jsonl", own)]
    with pytest.warns(UserWarning, match=r"5 documents of test are.*left out of train,"):
        sides = gather_documents([paths[0]], {"validation": 0.0, "test": paths[1]}, "text", 0)
    assert {document.content for document in sides["train"]} == set(train) - set(own)


def test_holdout_is_neither_trained_nor_evaluated_on(tmp_path: Path) -> None:
    train, own = texts(40), texts(30)
    paths = [corpus(tmp_path / "train.jsonl", train), corpus(tmp_path / "own.jsonl", own)]
    held_out: dict[str, float | str] = {"validation": 0.3, "test": 0.2}
    without = gather_documents([paths[0]], held_out, "text", 0)
    with pytest.warns(UserWarning, match="documents of .* left out of holdout"):
        sides = gather_documents([paths[0]], {**held_out, "holdout": paths[1]}, "text", 0)
    assert all(sides[name] == without[name] for name in held_out)
    assert not set(sides["holdout"]) & {d for name in ("train", *held_out) for d in sides[name]}
    dealt = {document.content for side in sides.values() for document in side}
    assert dealt == set(train) | set(own)


def test_share_for_holdout_is_taken_from_training_alone(tmp_path: Path) -> None:
    path, held_out = corpus(tmp_path / "train.jsonl", texts(200)), {"validation": 0.2, "test": 0.1}
    without = gather_documents([path], held_out, "text", 0)
    assert gather_documents([path], {**held_out, "holdout": 0.0}, "text", 0) == without
    sides = gather_documents([path], {**held_out, "holdout": 0.25}, "text", 0)
    assert all(sides[name] == without[name] for name in held_out)
    assert set(sides["train"]) | set(sides["holdout"]) == set(without["train"])
    assert len(sides["holdout"]) == pytest.approx(50, abs=15)


def test_holdout_of_evaluated_documents_alone_is_refused(tmp_path: Path) -> None:
    path, own = corpus(tmp_path / "a.jsonl", texts(20)), corpus(tmp_path / "b.jsonl", ["Own."])
    held_out = {"validation": own, "test": 0.0, "holdout": own}
    with (
        pytest.warns(UserWarning, match="1 documents of validation are in holdout"),
        pytest.raises(ValueError, match=r"no document for holdout: .* or holdout its own path"),
    ):
        gather_documents([path], held_out, "text", 0)


def test_split_without_documents_is_refused(tmp_path: Path) -> None:
    path = corpus(tmp_path / "one.jsonl", ["The only one."])
    with pytest.raises(ValueError, match=r"no document for .*of 1 documents .*Give"):
        gather_documents([path], {"validation": 0.5, "test": 0.0}, "text", split_seed=0)


def test_unusable_documents_are_counted(tokenizer: PreTrainedTokenizerBase) -> None:
    empty = [Document("text", ""), Document("completion", json.dumps(["", ""]))]
    split = prepare_split([*DOCUMENTS, *empty], tokenizer, block_size=32)
    assert split.documents + split.skipped == len(DOCUMENTS) + len(empty)
    assert len(split.blocks.tokens) > 0


def test_nothing_but_unusable_documents_is_refused(
    chat_tokenizer: PreTrainedTokenizerBase,
) -> None:
    chat = Document("messages", json.dumps([{"role": "user", "content": "Why?"}]))
    with pytest.raises(ValueError, match=r"train: none of the 2 documents.*Give longer"):
        prepare_split([chat, chat], chat_tokenizer, block_size=32)


def test_limit_keeps_a_prefix_of_whole_documents(tokenizer: PreTrainedTokenizerBase) -> None:
    whole = prepare_split(DOCUMENTS, tokenizer, block_size=32)
    limited = prepare_split(DOCUMENTS, tokenizer, block_size=32, max_tokens=500)
    first = prepare_split(DOCUMENTS[: limited.documents], tokenizer, block_size=32)
    assert limited.blocks.fingerprint() == first.blocks.fingerprint()
    assert 400 < len(limited.blocks.tokens) <= 500
    assert limited.documents + limited.beyond_limit == whole.documents


def test_limit_below_the_first_document_is_refused(tokenizer: PreTrainedTokenizerBase) -> None:
    with pytest.raises(ValueError, match=r"max_train_tokens.*got 2, but the first has .*Raise it"):
        prepare_split(DOCUMENTS, tokenizer, block_size=32, max_tokens=2)
