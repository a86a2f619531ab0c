import json
from typing import Any

import pytest

from lit_entrodrop.data.documents import Document, digest_documents, document_from_row
from lit_entrodrop.data.reading import Reading

CHAT = [{"role": "user", "content": "Why?"}, {"role": "assistant", "content": "Fever."}]


@pytest.mark.parametrize(
    ("row", "kind", "content"),
    [
        ({"text": "Fever.", "messages": CHAT}, "text", "Fever."),
        ({"prompt": "Q", "completion": "A", "id": 3}, "completion", '["Q", "A"]'),
        ({"messages": CHAT}, "messages", json.dumps(CHAT)),
    ],
)
def test_columns_tell_the_kind(row: dict[str, Any], kind: str, content: str) -> None:
    document = document_from_row(row, Reading(), "here")
    assert (document.kind, document.content, document.where) == (kind, content, "here")
    assert document == document_from_row(row, Reading(), "elsewhere")


def test_absent_keys_of_a_message_are_dropped() -> None:
    parquet = [{**turn, "tool_calls": None} for turn in CHAT]
    expected = document_from_row({"messages": CHAT}, Reading(), "here")
    assert document_from_row({"messages": parquet}, Reading(), "here") == expected


@pytest.mark.parametrize(
    ("row", "named"),
    [
        ({"body": "x", "id": 1}, ["a.csv row 2", "['body', 'id']", "Set text_column"]),
        (
            {"text": None, "messages": None},
            ["['messages (null)', 'text (null)']", "Fill 'text' or 'messages', or remove the row"],
        ),
        ({"prompt": "Q", "completion": None}, ["Fill 'completion', or remove the row"]),
        ({"prompt": "Q", "completion": "A", "system": "Be brief."}, ["'system'", "of 'prompt'"]),
        ({"messages": "[" * 100_000}, ["'messages'", "got '[[["]),
        ({"text": 3}, ["a.csv row 2: ", "'text'", "int", "Convert"]),
        ({"prompt": "Q", "completion": ["A"]}, ["'completion'", "list"]),
        ({"messages": "Hello"}, ["'messages'", "got 'Hello'", "Write it as"]),
        ({"messages": [{"content": "Hello"}]}, ["'role'"]),
        ({"messages": []}, ["non-empty", "got []"]),
        ({"text": "a \ud800"}, ["lone surrogate", "ud800", "remove the row"]),
    ],
)
def test_bad_row_is_refused(row: dict[str, Any], named: list[str]) -> None:
    with pytest.raises(ValueError) as caught:  # noqa: PT011
        document_from_row(row, Reading(), "a.csv row 2")
    assert all(part in str(caught.value) for part in named), caught.value


ALPACA = {"instruction": "Sum", "input": "1 2", "output": "3"}
SHAREGPT = [{"from": "human", "value": "hi"}, {"from": "gpt", "value": "yo"}]


@pytest.mark.parametrize(
    ("row", "named"),
    [
        (ALPACA, ["['input', 'instruction', 'output']", "Alpaca", "'prompt'", "'completion'"]),
        ({"instruction": "Sum", "response": "3"}, ["(the response)"]),
        ({"conversations": SHAREGPT}, ["'conversations'", "'messages'", "'human' is 'user'"]),
        ({"dialog": CHAT, "id": 1}, ["'dialog'", "Convert it to 'messages'"]),
        ({"messages": SHAREGPT}, ["'role'", "['from', 'value']", "Write it as"]),
        ({"prompt": CHAT[:1], "completion": CHAT[1:]}, ["'prompt' is a chat", "'messages'"]),
        ({"prompt": "Q", "response": "A"}, ["Rename 'response' to 'completion'"]),
        ({"prompt": "Q", "chosen": "A", "rejected": "B"}, ["Preference pairs", "chosen"]),
    ],
)
def test_other_forms_are_recognized(row: dict[str, Any], named: list[str]) -> None:
    with pytest.raises(ValueError, match=r"^a\.jsonl line 2: ") as caught:
        document_from_row(row, Reading(), "a.jsonl line 2")
    assert all(part in str(caught.value) for part in named), caught.value
    assert "text_column" not in str(caught.value)


def test_digest_sees_kind_order_and_boundaries() -> None:
    a, b, ab = (Document("text", content) for content in ("a", "b", "ab"))
    variants = [[a, b], [b, a], [ab], [Document("completion", "a"), b]]
    assert len({digest_documents(variant) for variant in variants}) == len(variants)
