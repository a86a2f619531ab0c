from typing import Any

import pytest

from lit_entrodrop.data.reading_options import ReadingOptions
from lit_entrodrop.data.records import document_from_row

CHAT = [{"role": "user", "content": "Why?"}, {"role": "assistant", "content": "Fever."}]
SHAREGPT = [{"from": "human", "value": "Why?"}, {"from": "gpt", "value": "Fever."}]


@pytest.mark.parametrize(
    ("row", "named"),
    [
        # Preference, as text, as messages and with the prompt in both.
        ({"prompt": "Q", "chosen": "A", "rejected": "B"}, ["Preference pairs", "chosen"]),
        ({"chosen": CHAT, "rejected": CHAT}, ["Preference pairs", "chosen"]),
        (
            {"conversations": SHAREGPT, "chosen": SHAREGPT[1], "rejected": SHAREGPT[1]},
            ["Preference pairs", "chosen"],
        ),
        (
            {"input": {"messages": CHAT}, "preferred_output": CHAT, "non_preferred_output": CHAT},
            ["Preference pairs", "preferred outputs"],
        ),
        # Answers with a judgment, also in a CSV file.
        ({"prompt": "Q", "completion": "A", "label": True}, ["'label' True", "judgment"]),
        ({"prompt": "Q", "completion": "A", "label": "False"}, ["'label' 'False'", "judgment"]),
        ({"prompt": CHAT[:1], "completion": CHAT[1:], "label": False}, ["'label' False"]),
        ({"conversations": SHAREGPT, "kto_tag": False}, ["'kto_tag'", "judgment"]),
        (
            {"prompt": "Q", "completions": ["A", "B"], "labels": [True, False]},
            ["Stepwise supervision", "'completion'"],
        ),
        ({"prompt": "Q"}, ["A prompt alone", "'completion'"]),
        ({"prompt": CHAT[:1]}, ["A prompt alone", "'completion'"]),
        ({"messages": CHAT, "images": ["a.png"]}, ["'images'", "only text is learned"]),
        ({"input_ids": [3], "labels": [3]}, ["Tokens are not read"]),
        # Columns that change what an answer means.
        ({"messages": CHAT, "documents": [{"text": "Fever."}]}, ["'documents'", "not read"]),
        ({"instruction": "Q", "output": "A", "tools": [{"name": "w"}]}, ["'tools'", "'messages'"]),
        # Other names.
        ({"dialog": CHAT, "id": 1}, ["Set data.columns to {messages: dialog}."]),
        (
            {"question": "Q", "answer": "A"},
            [
                "{instruction: question, output: answer} for a chat",
                "{prompt: question, completion: answer} for plain text",
            ],
        ),
        ({"instruction": "Q", "input": "I", "response": "A"}, ["to {output: response} for a chat"]),
        ({"instruction": "Q", "context": "", "response": "A"}, ["{input: context, output: resp"]),
        ({"prompt": "Q", "generation": "A"}, ["{completion: generation} for plain text"]),
        ({"title": "T", "body": "B"}, ["Set data.columns to {text: COLUMN}"]),
    ],
)
def test_other_records_are_refused_with_advice(row: dict[str, Any], named: list[str]) -> None:
    with pytest.raises(ValueError, match=r"^a\.jsonl line 2: [^\n]*$") as caught:
        document_from_row(row, ReadingOptions(), "a.jsonl line 2")
    assert all(part in str(caught.value) for part in named), caught.value


@pytest.mark.parametrize(
    "row",
    [
        {"text": "Fever.", "images": ["a.png"], "label": True, "system": "Be brief."},
        {"prompt": "Q", "completion": "A", "label": 3, "images": []},
        {"messages": CHAT, "images": None, "documents": [], "labels": [3]},
    ],
)
def test_columns_without_a_meaning_for_the_answer_are_ignored(row: dict[str, Any]) -> None:
    assert document_from_row(row, ReadingOptions(), "").content
