from pathlib import Path

import pytest
from transformers import PreTrainedTokenizerBase

from lit_entrodrop.data.chat import encode_chat
from lit_entrodrop.model.loading import load_tokenizer
from tests.lit_entrodrop.data.conftest import PLAIN_TEMPLATE, build_tokenizer

CHAT = [
    {"role": "system", "content": "the patient"},
    {"role": "user", "content": "acute pain"},
    {"role": "assistant", "content": "two weeks rest"},
    {"role": "user", "content": "fever"},
    {"role": "assistant", "content": "renal"},
]


def test_only_assistant_turns_are_counted(chat_tokenizer: PreTrainedTokenizerBase) -> None:
    ids, counted = encode_chat(CHAT, chat_tokenizer)
    learned = [token for token, count in zip(ids, counted, strict=True) if count]
    assert chat_tokenizer.decode(learned) == "two weeks rest<|end|>\nrenal<|end|>\n"
    rendered = chat_tokenizer.apply_chat_template(CHAT, tokenize=False)
    assert chat_tokenizer.decode(ids) == rendered


def test_chat_without_assistant_counts_nothing(chat_tokenizer: PreTrainedTokenizerBase) -> None:
    assert not any(encode_chat(CHAT[:2], chat_tokenizer)[1])


def test_chat_may_begin_with_the_assistant(chat_tokenizer: PreTrainedTokenizerBase) -> None:
    ids, counted = encode_chat(CHAT[2:4], chat_tokenizer)
    learned = [token for token, count in zip(ids, counted, strict=True) if count]
    assert str(chat_tokenizer.decode(learned)).endswith("two weeks rest<|end|>\n")


def test_tokenizer_without_template_is_refused(tokenizer: PreTrainedTokenizerBase) -> None:
    with pytest.raises(ValueError, match=r"no chat template: expected one.*Use an instruction"):
        encode_chat(CHAT, tokenizer)


def test_template_that_rewrites_turns_is_refused(tmp_path: Path) -> None:
    only_last = "{% set messages = messages[-2:] %}" + PLAIN_TEMPLATE
    tokenizer = load_tokenizer(str(build_tokenizer(tmp_path, chat_template=only_last)))
    with pytest.raises(ValueError, match=r"rewrites earlier turns.*message 3.*generation %\}"):
        encode_chat(CHAT, tokenizer)
