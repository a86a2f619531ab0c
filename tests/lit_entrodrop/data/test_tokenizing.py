import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from transformers import PreTrainedTokenizerBase

from lit_entrodrop.data import tokenizing
from lit_entrodrop.data.adjustments import BLANK, BLANK_COMPLETION
from lit_entrodrop.data.documents import Document
from lit_entrodrop.data.tokenizing import (
    TokenizedDocuments,
    check_tokenizer,
    digest_tokenizer,
    encode_batch,
    tokenize_documents,
)
from lit_entrodrop.model.loading import load_tokenizer
from tests.helpers.tokenizer_habits import CHATML, make_tokenizer
from tests.lit_entrodrop.data.conftest import build_tokenizer, texts

MIXED = [
    Document("text", "acute fever"),
    Document("completion", json.dumps(["acute", " renal pain"])),
    Document("text", ""),
    Document("completion", json.dumps(["acute", ""])),
]


def separate(documents: TokenizedDocuments) -> list[tuple[list[int], list[bool]]]:
    cuts = np.cumsum(documents.lengths)[:-1]
    rows = (np.split(documents.tokens, cuts), np.split(documents.counted, cuts))
    return [(ids.tolist(), counted.tolist()) for ids, counted in zip(*rows, strict=True)]


def test_text_keeps_bos_and_ends_with_eos(tokenizer: PreTrainedTokenizerBase) -> None:
    documents = [Document("text", text) for text in texts(30)]
    rows = separate(encode_batch(documents, tokenizer))
    for document, (ids, counted) in zip(documents, rows, strict=True):
        assert tokenizer.decode(ids) == f"<s>{document.content}</s>"
        assert all(counted)


def test_only_the_completion_is_counted(tokenizer: PreTrainedTokenizerBase) -> None:
    ids, counted = separate(encode_batch(MIXED, tokenizer))[1]
    boundary = counted.index(True)
    assert tokenizer.decode(ids[:boundary]) == "<s>acute"
    assert tokenizer.decode(ids[boundary:]) == " renal pain</s>"
    assert all(counted[boundary:])


def test_error_names_file_and_row() -> None:
    chat = [{"role": "system", "content": "pain"}, {"role": "assistant", "content": "rest"}]
    document = Document("messages", json.dumps(chat), "a.jsonl line 3")
    with pytest.raises(ValueError, match=r"^a\.jsonl line 3: .*System role not supported$"):
        encode_batch([document], make_tokenizer("no_system"))


def test_two_processes_give_the_same_tokens(tokenizer: PreTrainedTokenizerBase) -> None:
    many = [*MIXED, *(Document("text", text) for text in texts(2_500))]
    one, two = (list(tokenize_documents(many, tokenizer, num_proc=n)) for n in (1, 2))
    assert len(one) == 3
    assert [separate(part) for part in one] == [separate(part) for part in two]
    assert one[0].adjustments == two[0].adjustments


def test_batches_are_bounded_by_characters(
    tokenizer: PreTrainedTokenizerBase, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tokenizing, "MOST_CHARACTERS", 25)
    sizes = [len(part.lengths) for part in tokenize_documents(MIXED * 2, tokenizer)]
    assert sizes == [1, 2, 2, 2, 1]


def test_documents_without_a_label_are_empty_and_counted(
    tokenizer: PreTrainedTokenizerBase,
) -> None:
    documents = encode_batch(MIXED, tokenizer)
    assert (documents.lengths > 0).tolist() == [True, True, False, False]
    assert documents.adjustments == {BLANK: 1, BLANK_COMPLETION: 1}
    assert encode_batch(MIXED[2:], tokenizer).tokens.tolist() == []


def test_selection_keeps_whole_documents() -> None:
    everywhere = np.ones(7, dtype=bool)
    documents = TokenizedDocuments(np.arange(7), everywhere, np.array([1, 2, 2, 2]))
    chosen = documents.select(np.array([False, True, False, True]))
    assert (chosen.tokens.tolist(), chosen.lengths.tolist()) == ([1, 2, 5, 6], [2, 2])


def test_tokenizer_without_eos_is_refused(tokenizer_folder: Path) -> None:
    tokenizer = load_tokenizer(str(tokenizer_folder))
    tokenizer.eos_token = None
    with pytest.raises(ValueError, match=r"no EOS token: expected one.*Set eos_token"):
        check_tokenizer(tokenizer, {"text"})


def test_chats_need_a_chat_template(tokenizer: PreTrainedTokenizerBase) -> None:
    with pytest.raises(ValueError, match="no chat template"):
        check_tokenizer(tokenizer, {"text", "messages"})


def test_digest_sees_what_changes_tokens_and_not_the_folder(tmp_path: Path) -> None:
    variants: list[dict[str, Any]] = [{}, {"bos": False}, {"chat_template": CHATML}]
    digests = [
        digest_tokenizer(load_tokenizer(str(build_tokenizer(tmp_path / f"{n}", **variant))))
        for n, variant in enumerate([*variants, {}])
    ]
    assert len(set(digests)) == len(variants)
    assert digests[0] == digests[-1]
