"""Records in the formats that Axolotl documents are read with the settings of docs/formats.md."""

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.helpers.tokenizer_habits import make_tokenizer
from tests.lit_entrodrop.data.records.test_learned import runs

PAGE = Path("docs/formats.md").read_text()
ROW = re.compile(r"\| (?:Axolotl)? ?\| (`.*) \| (?:none|`data\.columns: (.*)`) \|")
SETTINGS = {
    name: yaml.safe_load(columns) if columns else None
    for names, columns in ROW.findall(PAGE)
    for name in re.findall(r"`([\w.]+)`", names)
}
# The answer, which alone is learned, is the same in all of them.
ANSWER = "The Dead Sea."
EXAMPLES: dict[str, dict[str, Any]] = {
    "alpaca": {"instruction": "Name a sea.", "input": "It is salty.", "output": ANSWER},
    "gpteacher": {"instruction": "Name a sea.", "input": "It is salty.", "response": ANSWER},
    "alpaca_chat": {"instruction": "Name a sea.", "input": "", "response": ANSWER},
    "oasst": {"INSTRUCTION": "Name a sea.", "RESPONSE": ANSWER},
    "alpaca_chat.load_qa": {"question": "Which sea is salty?", "answer": ANSWER},
    "jeopardy": {"question": "It is salty.", "category": "Seas", "answer": ANSWER},
    "context_qa": {"article": "Salt lakes.", "question": "Which is salty?", "answer": ANSWER},
    "alpaca_w_system.load_open_orca": {
        "system_prompt": "Be brief.",
        "question": "Which sea is salty?",
        "response": ANSWER,
    },
    "summarizetldr": {"article": "This sea is the saltiest.", "summary": ANSWER},
    "alpaca_chat.load_camel_ai": {"message_1": "Which sea is salty?", "message_2": ANSWER},
    "metharme": {"prompt": "Which sea is salty?", "generation": ANSWER},
    "input_output": {
        "segments": [
            {"text": "Which sea is salty? ", "label": False},
            {"text": ANSWER, "label": True},
        ]
    },
    "chat_template": {
        "messages": [
            {"role": "user", "content": "Which sea is salty?"},
            {"role": "assistant", "content": ANSWER},
        ]
    },
    "sharegpt": {
        "conversations": [
            {"from": "human", "value": "Which sea is salty?"},
            {"from": "gpt", "value": ANSWER},
        ]
    },
    "pygmalion": {
        "conversations": [
            {"role": "user", "value": "Which sea is salty?"},
            {"role": "model", "value": ANSWER},
        ]
    },
    # Every token of a text counts.
    "completion": {"text": ANSWER},
}


def test_every_documented_format_has_an_example() -> None:
    assert SETTINGS.keys() == EXAMPLES.keys()


@pytest.mark.parametrize("name", EXAMPLES)
def test_example_is_read_and_its_answer_is_learned(name: str) -> None:
    row, columns = EXAMPLES[name], SETTINGS[name]
    plain = name in ("completion", "input_output", "summarizetldr", "metharme")
    for template in (None,) if not plain else (None, ""):
        found = runs(row, make_tokenizer("chatml", chat_template=template), columns)
        assert [text for counts, text in found if counts] == [f"{ANSWER}<|im_end|>"]
        asked = "".join(text for counts, text in found if not counts)
        fields = (value for value in row.values() if isinstance(value, str) and value != ANSWER)
        assert all(field in asked for field in fields)


def test_segments_are_joined_as_they_are() -> None:
    """Parts that count may be first, last and between others."""
    texts = [("Hello\n", True), ("there. ", True), ("goodbye ", False), ("farewell", True)]
    row = {"segments": [{"text": text, "label": label} for text, label in texts]}
    expected = [(True, "Hello\nthere. "), (False, "goodbye "), (True, "farewell<|im_end|>")]
    assert runs(row, make_tokenizer("chatml")) == expected
    row["segments"].append({"text": " over", "label": False})
    expected[-1:] = [(True, "farewell"), (False, " over<|im_end|>")]
    assert runs(row, make_tokenizer("chatml")) == expected
