import json
from typing import Any

import pytest

from lit_entrodrop.data.reading_options import ReadingOptions
from lit_entrodrop.data.records import check_format_settings, document_from_row

CHAT = [{"role": "user", "content": "Why?"}, {"role": "assistant", "content": "Fever."}]
SHAREGPT = [{"from": "human", "value": "Why?"}, {"from": "gpt", "value": "Fever."}]
ALPACA = {"instruction": "Sum", "input": "1 2", "output": "3"}
PAIR = {"prompt": "Q", "completion": "A"}


@pytest.mark.parametrize(
    ("row", "format", "kind", "content"),
    [
        ({"text": "Fever.", "title": 3}, "text", "text", "Fever."),
        ({**PAIR, "id": 3}, "prompt_completion", "completion", '["Q", "A"]'),
        ({**PAIR, "label": "A"}, "prompt_completion", "completion", '["Q", "A"]'),
        ({"messages": CHAT, "prompt": "Why?"}, "messages", "messages", json.dumps(CHAT)),
        ({"conversations": SHAREGPT}, "sharegpt", "messages", json.dumps(CHAT)),
        (ALPACA, "alpaca", "instruction", '["Sum", "1 2", "3", "", []]'),
        # Rows of a table, which has the columns of several formats.
        ({"text": "Fever.", "prompt": None, "completion": None}, "text", "text", "Fever."),
        ({"text": " ", **PAIR}, "prompt_completion", "completion", '["Q", "A"]'),
        ({"text": "Fever.", "prompt": "", "completion": ""}, "text", "text", "Fever."),
    ],
)
def test_columns_determine_the_format(
    row: dict[str, Any], format: str, kind: str, content: str
) -> None:
    document = document_from_row(row, ReadingOptions(), "here")
    assert (document.format, document.kind, document.content) == (format, kind, content)
    assert document.where == "here"
    assert document == document_from_row(row, ReadingOptions(format=format), "elsewhere")


def test_named_format_decides_where_several_fit() -> None:
    row = {"text": "### Sum\n1 2\n3", **ALPACA}
    with pytest.raises(ValueError, match=r"the columns of alpaca and text\. Set data\.format"):
        document_from_row(row, ReadingOptions(), "here")
    for name in ("alpaca", "text"):
        assert document_from_row(row, ReadingOptions(format=name), "here").format == name


def test_named_format_needs_its_columns() -> None:
    expected = (
        r"^a row 1: expected the columns 'messages', got \['text'\]\. Set data\.format to auto"
    )
    with pytest.raises(ValueError, match=expected + r" or text, or remove the row\.$"):
        document_from_row({"text": "Fever."}, ReadingOptions(format="messages"), "a row 1")


def test_unknown_format_is_refused() -> None:
    with pytest.raises(ValueError, match=r"data\.format: expected one of auto, alpaca, .*'chatml'"):
        check_format_settings(ReadingOptions(format="chatml"))


def test_absent_keys_of_a_message_are_dropped() -> None:
    parquet = [{**turn, "tool_calls": None, "from": None} for turn in CHAT]
    expected = document_from_row({"messages": CHAT}, ReadingOptions(), "here")
    assert document_from_row({"messages": parquet}, ReadingOptions(), "here") == expected


@pytest.mark.parametrize(
    ("row", "named"),
    [
        ({"body": "x", "id": 1}, ["a.csv row 2", "['body', 'id']", "data.columns to {text: body}"]),
        (
            {"text": None, "messages": None},
            ["['messages (null)', 'text (null)']", "Fill 'messages' or 'text', or remove the row"],
        ),
        ({"prompt": "Q", "completion": None}, ["Fill 'completion', or remove the row"]),
        ({**PAIR, "tools": [{"name": "w"}]}, ["'tools'", "messages in both"]),
        ({"messages": "[" * 100_000}, ["'messages'", "got '[[["]),
        ({"text": 3}, ["a.csv row 2: ", "'text'", "int", "Convert"]),
        ({"prompt": "Q", "completion": ["A"]}, ["'completion'", "list"]),
        ({"prompt": "Q", "completion": CHAT[1:]}, ["'prompt' and 'completion'", "messages in one"]),
        ({"messages": "Hello"}, ["'messages'", "got 'Hello'", "Write it as"]),
        ({"messages": [{"content": "Hello"}]}, ["'role'"]),
        ({"messages": []}, ["non-empty", "got []"]),
        ({"conversations": ["Hello"]}, ["'conversations'", "got 'Hello'"]),
        (
            {"messages": [{"role": "system", "content": "a"}, *CHAT], "system": "b"},
            ["one system prompt", "Remove one"],
        ),
        ({**ALPACA, "history": ["Hi"]}, ["'history'", "pairs of texts", "['Hi']"]),
        ({**ALPACA, "input": 3}, ["'input'", "int"]),
        ({"segments": [{"text": "a"}]}, ["'segments'", "[{'text': 'a'}]", "Write it as"]),
        ({"text": "a \ud800"}, ["lone surrogate", "ud800", "remove the row"]),
    ],
)
def test_bad_row_is_refused(row: dict[str, Any], named: list[str]) -> None:
    with pytest.raises(ValueError) as caught:  # noqa: PT011
        document_from_row(row, ReadingOptions(), "a.csv row 2")
    assert all(part in str(caught.value) for part in named), caught.value
