"""Formats of records with the tokenizers of model families, against texts written by hand.

In these texts, `[[` and `]]` enclose a turn of the assistant that counts, `((` and `))` another
message that counts with `train_on: all`.
"""

import re
from typing import Any

import pytest

from lit_entrodrop.data.chats.encoding import encode_chat
from lit_entrodrop.data.chats.record import Chat
from lit_entrodrop.data.label_settings import TrainOn
from lit_entrodrop.data.reading_options import ReadingOptions
from lit_entrodrop.data.records import document_from_row
from lit_entrodrop.data.tokenizing import encode_batch
from tests.helpers.template_families import FAMILIES, make_family
from tests.helpers.tokenizer_habits import runs

TWO = [
    {"role": "user", "content": "hi"},
    {"role": "assistant", "content": "yo"},
    {"role": "user", "content": "why?"},
    {"role": "assistant", "content": "no"},
]
SYSTEM = [{"role": "system", "content": "Be brief."}, *TWO[:2]]
REASONING = [TWO[0], {"role": "assistant", "content": "<think>\nso\n</think>\n\nyo"}]

# By family, the chats above.
CHATS = {
    "chatml": {
        "two": "<|im_start|>user\n((hi<|im_end|>))\n<|im_start|>assistant\n[[yo<|im_end|>]]\n"
        "<|im_start|>user\n((why?<|im_end|>))\n<|im_start|>assistant\n[[no<|im_end|>]]\n<|im_end|>",
        "system": "<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\n((hi<|im_end|>))\n"
        "<|im_start|>assistant\n[[yo<|im_end|>]]\n<|im_end|>",
        "reasoning": "<|im_start|>user\n((hi<|im_end|>))\n<|im_start|>assistant\n"
        "[[<think>\nso\n</think>\n\nyo<|im_end|>]]\n<|im_end|>",
    },
    "default_system": {
        "two": "<|im_start|>system\nYou are Testy.<|im_end|>\n"
        "<|im_start|>user\n((hi<|im_end|>))\n<|im_start|>assistant\n[[yo<|im_end|>]]\n"
        "<|im_start|>user\n((why?<|im_end|>))\n<|im_start|>assistant\n[[no<|im_end|>]]\n<|im_end|>",
        "system": "<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\n((hi<|im_end|>))\n"
        "<|im_start|>assistant\n[[yo<|im_end|>]]\n<|im_end|>",
        "reasoning": "<|im_start|>system\nYou are Testy.<|im_end|>\n"
        "<|im_start|>user\n((hi<|im_end|>))\n<|im_start|>assistant\n"
        "[[<think>\nso\n</think>\n\nyo<|im_end|>]]\n<|im_end|>",
    },
    "llama3": {
        "two": "<|begin_of_text|><|start_header_id|>user<|end_header_id|>\n\n((hi<|eot_id|>))"
        "<|start_header_id|>assistant<|end_header_id|>\n\n[[yo<|eot_id|>]]"
        "<|start_header_id|>user<|end_header_id|>\n\n((why?<|eot_id|>))"
        "<|start_header_id|>assistant<|end_header_id|>\n\n[[no<|eot_id|>]]<|end_of_text|>",
        "system": "<|begin_of_text|><|start_header_id|>system<|end_header_id|>\n\n"
        "Be brief.<|eot_id|>"
        "<|start_header_id|>user<|end_header_id|>\n\n((hi<|eot_id|>))"
        "<|start_header_id|>assistant<|end_header_id|>\n\n[[yo<|eot_id|>]]<|end_of_text|>",
        "reasoning": "<|begin_of_text|><|start_header_id|>user<|end_header_id|>\n\n((hi<|eot_id|>))"
        "<|start_header_id|>assistant<|end_header_id|>\n\n"
        "[[<think>\nso\n</think>\n\nyo<|eot_id|>]]<|end_of_text|>",
    },
    "llama2": {
        "two": "<s>[INST] ((hi)) [/INST][[ yo </s>]]<s>[INST] ((why?)) [/INST][[ no </s>]]",
        "system": "<s>[INST] <<SYS>>\nBe brief.\n<</SYS>>\n\n((hi)) [/INST][[ yo </s>]]",
        "reasoning": "<s>[INST] ((hi)) [/INST][[ <think>\nso\n</think>\n\nyo </s>]]",
    },
    "gemma": {
        "two": "<bos><start_of_turn>user\n((hi<end_of_turn>))\n"
        "<start_of_turn>model\n[[yo<end_of_turn>]]\n"
        "<start_of_turn>user\n((why?<end_of_turn>))\n"
        "<start_of_turn>model\n[[no<end_of_turn>]]\n<eos>",
        "system": "refused: System role not supported",
        "reasoning": "<bos><start_of_turn>user\n((hi<end_of_turn>))\n<start_of_turn>model\n"
        "[[<think>\nso\n</think>\n\nyo<end_of_turn>]]\n<eos>",
    },
    "qwen3": {
        "two": "<|im_start|>user\n((hi<|im_end|>))\n<|im_start|>assistant\n[[yo<|im_end|>]]\n"
        "<|im_start|>user\n((why?<|im_end|>))\n<|im_start|>assistant\n"
        "[[<think>\n\n</think>\n\nno<|im_end|>]]\n<|im_end|>",
        "system": "<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\n((hi<|im_end|>))\n"
        "<|im_start|>assistant\n[[<think>\n\n</think>\n\nyo<|im_end|>]]\n<|im_end|>",
        "reasoning": "<|im_start|>user\n((hi<|im_end|>))\n<|im_start|>assistant\n"
        "[[<think>\nso\n</think>\n\nyo<|im_end|>]]\n<|im_end|>",
    },
}
# By format, a record and the chat that it is.
ROWS: dict[str, tuple[dict[str, Any], str]] = {
    "messages": ({"messages": TWO}, "two"),
    "messages of parts": (
        {"messages": [{**m, "content": [{"type": "text", "text": m["content"]}]} for m in TWO]},
        "two",
    ),
    "sharegpt": (
        {
            "conversations": [
                {"from": "human", "value": "hi"},
                {"from": "gpt", "value": "yo"},
                {"from": "human", "value": "why?"},
                {"from": "gpt", "value": "no"},
            ]
        },
        "two",
    ),
    "alpaca": ({"instruction": "why?", "output": "no", "history": [["hi", "yo"]]}, "two"),
    "messages with system": ({"messages": SYSTEM}, "system"),
    "sharegpt with system": (
        {
            "conversations": [{"from": "human", "value": "hi"}, {"from": "gpt", "value": "yo"}],
            "system": "Be brief.",
        },
        "system",
    ),
    "alpaca with system": ({"instruction": "hi", "output": "yo", "system": "Be brief."}, "system"),
    "reasoning": ({"messages": REASONING}, "reasoning"),
}
MARKS = re.compile(r"\[\[|\]\]|\(\(|\)\)")


def encode(
    family: str, row: dict[str, Any], train_on: TrainOn = "completions"
) -> tuple[str, list[str]]:
    """Return the text of a record's tokens, and the parts that count."""
    tokenizer = make_family(family)
    batch = encode_batch([document_from_row(row, ReadingOptions(), "row 1")], tokenizer, train_on)
    ids, counted = batch.tokens.tolist(), batch.counted.tolist()
    return plain(tokenizer.decode(ids)), [plain(part) for part in runs(tokenizer, ids, counted)]


def plain(text: str) -> str:
    """Remove what SentencePiece adds or removes when it decodes."""
    return text.replace("<s> ", "<s>").strip(" ")


@pytest.mark.parametrize("train_on", ["completions", "last_turn", "all"])
@pytest.mark.parametrize("row", ROWS)
@pytest.mark.parametrize("family", FAMILIES)
def test_chat(family: str, row: str, train_on: TrainOn) -> None:
    record, chat = ROWS[row]
    expected = CHATS[family][chat]
    if expected.startswith("refused: "):
        with pytest.raises(ValueError, match=f"^row 1: .*{expected.removeprefix('refused: ')}$"):
            encode(family, record, train_on)
        return
    answers = re.findall(r"\[\[(.*?)\]\]", expected, re.DOTALL)
    parts = {
        "completions": answers,
        "last_turn": answers[-1:],
        "all": re.findall(r"(?:\[\[|\(\()(.*?)(?:\]\]|\)\))", expected, re.DOTALL),
    }
    text, counted = encode(family, record, train_on)
    assert text == MARKS.sub("", expected)
    assert counted == [plain(part) for part in parts[train_on]]


@pytest.mark.parametrize("family", FAMILIES)
def test_completion_of_messages(family: str) -> None:
    text, counted = encode(family, {"prompt": TWO[:3], "completion": TWO[3:]})
    assert text == MARKS.sub("", CHATS[family]["two"])
    last = re.findall(r"\[\[(.*?)\]\]", CHATS[family]["two"], re.DOTALL)[-1]
    assert counted == [plain(last)]


FLAGGED = [
    {"from": "system", "value": "You know the sea.", "train": False},
    {"from": "human", "value": "Hello", "train": False},
    {"from": "gpt", "value": "Hi", "train": False},
    {"from": "human", "value": "How deep is it?", "train": True},
    {
        "from": "gpt",
        "value": "It is deep, and salty, too.",
        "train_detail": [
            {"begin_offset": 0, "end_offset": 9, "train": False},
            {"begin_offset": 10, "end_offset": 20, "train": True},
        ],
    },
    {"from": "human", "value": "Thanks"},
]


@pytest.mark.parametrize(("family", "end"), [("chatml", "<|im_end|>"), ("llama3", "<|eot_id|>")])
def test_flags_of_axolotl(family: str, end: str) -> None:
    _, counted = encode(family, {"conversations": FLAGGED})
    assert counted == [f"How deep is it?{end}", ", and salty", end]


@pytest.mark.parametrize("family", FAMILIES)
def test_text_and_pair(family: str) -> None:
    _, bos, eos, _ = FAMILIES[family]
    text, counted = encode(family, {"text": "fever and cough"})
    assert [text] == counted == [f"{bos or ''}fever and cough{eos}"]
    text, counted = encode(
        family, {"prompt": "question: what is it? answer:", "completion": " yes"}
    )
    assert text == f"{bos or ''}question: what is it? answer: yes{eos}"
    assert counted == [f"yes{eos}"]


@pytest.mark.parametrize("family", FAMILIES)
def test_tools_that_a_template_ignores_are_refused(family: str) -> None:
    tools = [{"type": "function", "function": {"name": "w", "description": "weather"}}]
    with pytest.raises(ValueError, match=r"^row 1: .*leaves out the tools"):
        encode(family, {"messages": TWO, "tools": tools})


@pytest.mark.parametrize("family", FAMILIES)
def test_turns_are_those_of_generation_tags(family: str) -> None:
    """Transformers computes the mask from tags in the template."""
    tagged, untagged = make_family(family, tagged=True), make_family(family)
    for messages in (TWO, REASONING):
        reference = tagged.apply_chat_template(
            messages, return_dict=True, return_assistant_tokens_mask=True
        )
        for tokenizer in (tagged, untagged):
            ids, counted, _ = encode_chat(Chat(messages), tokenizer)
            size = len(reference["input_ids"])
            assert ids[:size] == reference["input_ids"]
            assert counted[:size] == list(map(bool, reference["assistant_masks"]))
            assert counted[size:] == [False] * (len(ids) - size)
