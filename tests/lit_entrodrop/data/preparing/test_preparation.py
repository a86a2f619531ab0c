import json
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from transformers import PreTrainedTokenizerBase

from lit_entrodrop.data import tokenizing
from lit_entrodrop.data.adjustments import (
    BEYOND_LIMIT,
    BLANK,
    BLANK_COMPLETION,
    CUT,
    NEAREST_CONTEXT,
    TOO_FAR,
)
from lit_entrodrop.data.documents import Document
from lit_entrodrop.data.packing import array_files, blocks
from lit_entrodrop.data.packing.best_fit import pack_documents
from lit_entrodrop.data.preparing import preparation
from lit_entrodrop.data.preparing.packed_splits import PackedSplit
from lit_entrodrop.data.preparing.preparation import prepare_split
from lit_entrodrop.data.preparing.stored_documents import store_documents
from lit_entrodrop.data.tokenizing import encode_batch
from lit_entrodrop.runs.writing import WriteError
from tests.helpers.tokenizer_habits import make_tokenizer
from tests.lit_entrodrop.data.conftest import DataModuleFactory, texts

DOCUMENTS = [Document("text", text) for text in texts(50)]


def prepare(
    documents: list[Document], tokenizer: PreTrainedTokenizerBase, **settings: Any
) -> PackedSplit:
    return prepare_split(store_documents(documents, seed=0), tokenizer, **settings)


def test_unusable_documents_are_counted(tokenizer: PreTrainedTokenizerBase) -> None:
    """With a BOS token, even a blank document has an EOS that could be learned."""
    blank = [Document("text", ""), Document("text", "  \n\n ")]
    unanswered = Document("completion", json.dumps(["acute", " "]))
    split = prepare([*DOCUMENTS, *blank, unanswered], tokenizer, block_size=128)
    assert +Counter(split.adjustments) == {BLANK: 2, BLANK_COMPLETION: 1}
    expected = prepare(DOCUMENTS, tokenizer, block_size=128)
    assert split.blocks.fingerprint == expected.blocks.fingerprint


def test_blocks_are_those_of_all_documents_in_memory(
    tokenizer: PreTrainedTokenizerBase, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = [Document("completion", json.dumps([text, " yes" * 20])) for text in texts(20)]
    documents = [*DOCUMENTS, *asked, Document("text", ""), *DOCUMENTS[:5]]
    whole = encode_batch(documents, tokenizer)
    usable = whole.lengths > 0
    pad_id = tokenizer.eos_token_id
    expected = pack_documents(whole.select(usable), block_size=16, pad_id=pad_id)
    monkeypatch.setattr(tokenizing, "MOST_CHARACTERS", 500)
    for module in (array_files, blocks):
        monkeypatch.setattr(module, "PIECE", 100)
    split = prepare(documents, tokenizer, block_size=16, folder=tmp_path)
    assert isinstance(split.blocks.tokens, np.memmap)
    assert split.blocks.tokens.dtype == np.uint16
    assert split.blocks.fingerprint == expected.fingerprint
    assert (split.documents, split.duplicates) == (usable.sum(), 5)


def test_nothing_but_unusable_documents_is_refused() -> None:
    chat = Document("messages", json.dumps([{"role": "user", "content": "Why?"}]))
    with pytest.raises(
        ValueError, match=r"train: .*got 2 chats skipped: no assistant.*Give documents"
    ):
        prepare([chat, chat], make_tokenizer(), block_size=32)


def test_limit_keeps_a_prefix_of_whole_documents(tokenizer: PreTrainedTokenizerBase) -> None:
    whole = prepare(DOCUMENTS, tokenizer, block_size=32)
    limited = prepare(DOCUMENTS, tokenizer, block_size=32, max_tokens=500)
    first = prepare(DOCUMENTS[: limited.documents], tokenizer, block_size=32)
    assert limited.blocks.fingerprint == first.blocks.fingerprint
    assert 400 < limited.blocks.num_tokens <= 500
    for max_tokens, count in ((limited.blocks.num_tokens, 0), (limited.blocks.num_tokens - 1, 1)):
        exact = prepare(DOCUMENTS, tokenizer, block_size=32, max_tokens=max_tokens)
        assert exact.documents == limited.documents - count
    assert limited.documents + limited.adjustments[BEYOND_LIMIT] == whole.documents


def test_limit_below_the_first_document_is_refused(tokenizer: PreTrainedTokenizerBase) -> None:
    with pytest.raises(ValueError, match=r"max_train_tokens.*got 2, but the first has .*Raise it"):
        prepare(DOCUMENTS, tokenizer, block_size=32, max_tokens=2)


def test_prompt_longer_than_a_block_stays_beside_its_completion(
    tokenizer: PreTrainedTokenizerBase,
) -> None:
    asked = Document("completion", json.dumps(["pain and rest " * 200, " yes"]))
    long = Document("text", "pain and rest " * 20)
    split = prepare(
        [long, asked, Document("text", "pain")], tokenizer, block_size=32, packing=False
    )
    left_out = len(tokenizer("pain and rest " * 200 + " yes</s>")["input_ids"]) - 32
    assert +Counter(split.adjustments) == {CUT: 1, NEAREST_CONTEXT: 1, TOO_FAR: left_out}
    rows = [split.blocks[n] for n in range(len(split.blocks))]
    assert all((row["labels"] != -100).any() for row in rows)
    [answer] = [row for row in rows if tokenizer.decode(row["input_ids"]).endswith(" yes</s>")]
    assert "rest pain and rest  yes" in tokenizer.decode(answer["input_ids"])
    assert tokenizer.decode(answer["labels"][answer["labels"] != -100]) == " yes</s>"


def test_too_little_room_is_refused_before_reading(
    datamodule: DataModuleFactory, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(preparation, "ROOM", 1e12)
    with pytest.raises(WriteError, match=r"cache/.* MB needed, .* MB free: free disk space$"):
        datamodule().setup()
    assert not list((tmp_path / "cache").glob("*"))
