"""Records in the formats that Axolotl and TRL document are read, or refused by their name."""

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


def test_flags_of_messages_and_of_their_parts_are_read() -> None:
    """As where Axolotl documents fine-grained control."""
    salty = "Well, it is the Dead Sea."
    details = [
        {"begin_offset": 0, "end_offset": 4, "train": False},
        {"begin_offset": 5, "end_offset": 23, "train": True},
        {"begin_offset": 24, "end_offset": 24, "train": False},
    ]
    turns: list[dict[str, Any]] = [
        {"from": "system", "value": "You know seas.", "train": False},
        {"from": "human", "value": "Hi", "train": False},
        {"from": "assistant", "value": "Hello", "train": True},
        {"from": "human", "value": "Which is salty?", "train": True},
        {"from": "assistant", "value": salty, "train_detail": details},
        {"from": "human", "value": "Thanks"},
        {"from": "assistant", "value": "Bye", "train": False},
    ]
    found = runs({"conversations": turns}, make_tokenizer("chatml"))
    learned = [text for counts, text in found if counts]
    end = "<|im_end|>"
    assert learned == [f"Hello{end}", f"Which is salty?{end}", " it is the Dead Sea", end]


QUESTION = {"role": "user", "content": "Which sea is salty?"}
GOOD, BAD = ({"role": "assistant", "content": text} for text in (ANSWER, "The Baltic Sea."))
# By TRL's name of the format and type, what is learned or the reason of the refusal.
TRL: dict[str, tuple[dict[str, Any], str]] = {
    "standard language modeling": ({"text": ANSWER}, ANSWER),
    "standard prompt-only": ({"prompt": "Which?"}, "A prompt alone is not learned"),
    "standard prompt-completion": ({"prompt": "It is", "completion": f" {ANSWER}"}, f" {ANSWER}"),
    "standard preference": (
        {"prompt": "It is", "chosen": " salty.", "rejected": " sweet."},
        "Preference pairs are not learned",
    ),
    "standard implicit preference": (
        {"chosen": "It is salty.", "rejected": "It is sweet."},
        "Preference pairs are not learned",
    ),
    "standard unpaired preference": (
        {"prompt": "It is", "completion": " sweet.", "label": False},
        "Answers with a judgment are not learned",
    ),
    "stepwise supervision": (
        {
            "prompt": "9.8 or 9.11?",
            "completions": ["0.8 > 0.11.", "9.11."],
            "labels": [True, False],
        },
        "Stepwise supervision is not learned",
    ),
    "conversational language modeling": ({"messages": [QUESTION, GOOD]}, ANSWER),
    "conversational prompt-only": ({"prompt": [QUESTION]}, "A prompt alone is not learned"),
    "conversational prompt-completion": ({"prompt": [QUESTION], "completion": [GOOD]}, ANSWER),
    "conversational preference": (
        {"prompt": [QUESTION], "chosen": [GOOD], "rejected": [BAD]},
        "Preference pairs are not learned",
    ),
    "conversational implicit preference": (
        {"chosen": [QUESTION, GOOD], "rejected": [QUESTION, BAD]},
        "Preference pairs are not learned",
    ),
    "conversational unpaired preference": (
        {"prompt": [QUESTION], "completion": [BAD], "label": False},
        "Answers with a judgment are not learned",
    ),
    "vision": (
        {"images": ["a.png"], "prompt": [QUESTION], "completion": [GOOD]},
        "only text is learned",
    ),
}


@pytest.mark.parametrize("name", TRL)
def test_example_of_trl_is_read_or_refused_by_name(name: str) -> None:
    row, expected = TRL[name]
    tokenizer = make_tokenizer("chatml")
    if "learned" in expected:
        with pytest.raises(ValueError, match=rf"^here: [^\n]*{expected}[^\n]*$"):
            runs(row, tokenizer)
    else:
        learned = [text for counts, text in runs(row, tokenizer) if counts]
        assert learned == [f"{expected}<|im_end|>"]


def test_segments_are_joined_as_they_are() -> None:
    """Parts that count may be first, last and between others."""
    texts = [("Hello\n", True), ("there. ", True), ("goodbye ", False), ("farewell", True)]
    row = {"segments": [{"text": text, "label": label} for text, label in texts]}
    expected = [(True, "Hello\nthere. "), (False, "goodbye "), (True, "farewell<|im_end|>")]
    assert runs(row, make_tokenizer("chatml")) == expected
    row["segments"].append({"text": " over", "label": False})
    expected[-1:] = [(True, "farewell"), (False, " over<|im_end|>")]
    assert runs(row, make_tokenizer("chatml")) == expected
