"""What the loss counts in records of each format, written out by hand."""

import json
from typing import Any

import pytest
from transformers import PreTrainedTokenizerBase

from lit_entrodrop.data.adjustments import ALPACA_PROMPT, BLANK_ANSWER, NO_ANSWER
from lit_entrodrop.data.reading_options import ReadingOptions
from lit_entrodrop.data.records import document_from_row
from lit_entrodrop.data.tokenizing import encode_batch
from tests.helpers.tokenizer_habits import CHATML, TOOLS, make_tokenizer

Row = dict[str, Any]

Q = {"role": "user", "content": "Which sea is salty?"}
A = {"role": "assistant", "content": "The Dead Sea."}
TURN = "<|im_start|>user\nWhich sea is salty?<|im_end|>\n<|im_start|>assistant\n"
CALL = {"name": "depth", "arguments": {"sea": "Dead"}}
CALLED = '<tool_call>{"name": "depth", "arguments": {"sea": "Dead"}}</tool_call><|im_end|>'
TOOL = {"name": "depth", "description": "of a sea", "parameters": {"type": "object"}}
TOOL_WRITTEN = (
    '<|im_start|>system\n# Tools\n{"type": "function", "function": {"name": "depth", '
    '"description": "of a sea", "parameters": {"type": "object"}}}\n<|im_end|>\n'
)


def runs(
    row: Row, tokenizer: PreTrainedTokenizerBase, columns: dict[str, str] | None = None
) -> list[tuple[bool, str]]:
    """Return the runs of tokens that count, or do not, as text."""
    document = document_from_row(row, ReadingOptions(columns=columns), "here")
    encoded = encode_batch([document], tokenizer)
    found: list[tuple[bool, list[int]]] = []
    for token, counts in zip(encoded.tokens.tolist(), encoded.counted.tolist(), strict=True):
        if not found or found[-1][0] != counts:
            found.append((counts, []))
        found[-1][1].append(token)
    return [(counts, tokenizer.decode(ids)) for counts, ids in found]


CHATS: dict[str, tuple[Row, str, list[str]]] = {
    "messages": ({"messages": [Q, A]}, TURN, ["The Dead Sea.<|im_end|>"]),
    "messages with a model": (
        {"messages": [{"role": "user", "content": "hi"}, {"role": "model", "content": "yo"}]},
        "<|im_start|>user\nhi<|im_end|>\n<|im_start|>assistant\n",
        ["yo<|im_end|>"],
    ),
    "messages with a bot and a human": (
        {"messages": [{**Q, "role": "Human"}, {**A, "role": "bot"}]},
        TURN,
        ["The Dead Sea.<|im_end|>"],
    ),
    "a developer's prompt": (
        {"messages": [{"role": "developer", "content": "Be brief."}, Q, A]},
        f"<|im_start|>system\nBe brief.<|im_end|>\n{TURN}",
        ["The Dead Sea.<|im_end|>"],
    ),
    "a column with the system prompt": (
        {"messages": [Q, A], "system": "Be brief."},
        f"<|im_start|>system\nBe brief.<|im_end|>\n{TURN}",
        ["The Dead Sea.<|im_end|>"],
    ),
    "ShareGPT": (
        {"conversations": [{"from": "human", "value": "hi"}, {"from": "gpt", "value": "yo"}]},
        "<|im_start|>user\nhi<|im_end|>\n<|im_start|>assistant\n",
        ["yo<|im_end|>"],
    ),
    "ShareGPT with other names and a system prompt": (
        {
            "system": "",
            "conversations": [
                {"from": "system", "value": "Be brief."},
                {"from": "user", "value": "Which sea is salty?"},
                {"from": "bing", "value": "The Dead Sea."},
            ],
        },
        f"<|im_start|>system\nBe brief.<|im_end|>\n{TURN}",
        ["The Dead Sea.<|im_end|>"],
    ),
    # As in Pygmalion's data.
    "conversations with roles": (
        {
            "conversations": [
                {"role": "user", "value": "Which sea is salty?"},
                {"role": "model", "value": "The Dead Sea."},
            ]
        },
        TURN,
        ["The Dead Sea.<|im_end|>"],
    ),
    "Alpaca": (
        {"instruction": "Sum", "input": "1 2", "output": "3"},
        "<|im_start|>user\nSum\n\n1 2<|im_end|>\n<|im_start|>assistant\n",
        ["3<|im_end|>"],
    ),
    "Alpaca without input": (
        {"instruction": "Which sea is salty?", "input": "", "output": "The Dead Sea."},
        TURN,
        ["The Dead Sea.<|im_end|>"],
    ),
    "Alpaca with a history": (
        {
            "instruction": "Which sea is salty?",
            "output": "The Dead Sea.",
            "system": "Be brief.",
            "history": [["Hi", "Hello."]],
        },
        "<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\nHi<|im_end|>\n"
        f"<|im_start|>assistant\nHello.<|im_end|>\n{TURN}",
        ["Hello.<|im_end|>", "The Dead Sea.<|im_end|>"],
    ),
    "prompt and completion of messages": (
        {"prompt": [Q], "completion": [A]},
        TURN,
        ["The Dead Sea.<|im_end|>"],
    ),
    "an answer in the prompt": (
        {"prompt": [Q, {**A, "content": "None."}, Q], "completion": [A], "system": "Be brief."},
        f"<|im_start|>system\nBe brief.<|im_end|>\n{TURN}None.<|im_end|>\n{TURN}",
        ["The Dead Sea.<|im_end|>"],
    ),
}


def parts(text: str, learned: list[str]) -> list[tuple[bool, str]]:
    """Cut a text at what is learned, each at its last place before the next one."""
    found: list[tuple[bool, str]] = []
    for part in reversed(learned):
        before, middle, after = text.rpartition(part)
        assert middle, (part, text)
        found += [(False, after), (True, part)]
        text = before
    found.append((False, text))
    return [each for each in reversed(found) if each[1]]


@pytest.mark.parametrize("name", CHATS)
def test_answers_of_chats_are_learned(name: str) -> None:
    row, before, learned = CHATS[name]
    # The line end and EOS are of the template and of this program.
    whole = f"{before}{learned[-1]}\n<|endoftext|>"
    assert runs(row, make_tokenizer("chatml_other_eos")) == parts(whole, learned)


PAIRS: dict[str, tuple[Row, dict[str, str] | None, str, str]] = {
    "prompt and completion": (
        {"prompt": "The saltiest sea is", "completion": " the Dead Sea."},
        None,
        "The saltiest sea is",
        " the Dead Sea.",
    ),
    "with a system prompt": (
        {"system": "Seas.", "prompt": "The saltiest is", "completion": " the Dead Sea."},
        None,
        "Seas.\n\nThe saltiest is",
        " the Dead Sea.",
    ),
    "own names": (
        {"question": "Which?", "answer": " The Dead Sea.", "prompt": 3},
        {"prompt": "question", "completion": "answer"},
        "Which?",
        " The Dead Sea.",
    ),
    "Alpaca": (
        {"instruction": "Name a sea.", "input": "It is salty.", "output": "The Dead Sea."},
        None,
        "Below is an instruction that describes a task, paired with an input that provides further "
        "context. Write a response that appropriately completes the request.\n\n### Instruction:\n"
        "Name a sea.\n\n### Input:\nIt is salty.\n\n### Response:\n",
        "The Dead Sea.",
    ),
    "Alpaca without input": (
        {"instruction": "Name a sea.", "input": None, "output": "The Dead Sea."},
        None,
        "Below is an instruction that describes a task. Write a response that appropriately "
        "completes the request.\n\n### Instruction:\nName a sea.\n\n### Response:\n",
        "The Dead Sea.",
    ),
    "Alpaca with a system prompt and own names": (
        {"system_prompt": "Be brief.", "question": "Name a sea.", "response": "The Dead Sea."},
        {"system": "system_prompt", "instruction": "question", "output": "response"},
        "Be brief.\n\n### Instruction:\nName a sea.\n\n### Response:\n",
        "The Dead Sea.",
    ),
}


@pytest.mark.parametrize("name", PAIRS)
def test_completions_are_learned(name: str) -> None:
    row, columns, prompt, completion = PAIRS[name]
    tokenizer = make_tokenizer("chatml", chat_template="")
    expected = [(False, prompt), (True, f"{completion}<|im_end|>")]
    assert runs(row, tokenizer, columns) == expected


def test_published_prompt_is_counted() -> None:
    document = document_from_row({"instruction": "Sum", "output": "3"}, ReadingOptions(), "")
    for template, adjustments in (("", {ALPACA_PROMPT: 2}), (None, {})):
        tokenizer = make_tokenizer("chatml", chat_template=template)
        assert encode_batch([document] * 2, tokenizer).adjustments == adjustments


def test_text_is_learned() -> None:
    row = {"body": "The Dead Sea.", "text": None}
    found = runs(row, make_tokenizer("chatml"), {"text": "body"})
    assert found == [(True, "The Dead Sea.<|im_end|>")]


# A call of a tool, its result and the answer, in the forms of OpenAI then and now, and of ShareGPT.
CALLING: dict[str, Row] = {
    "tool_calls": {
        "messages": [
            Q,
            {
                "role": "assistant",
                "content": None,
                "tool_calls": [{"id": "1", "type": "function", "function": CALL}],
            },
            {"role": "tool", "tool_call_id": "1", "content": "304"},
            A,
        ],
        "tools": [{"type": "function", "function": TOOL}],
    },
    "arguments as text": {
        "messages": [
            Q,
            {
                "role": "assistant",
                "tool_calls": json.dumps([{**CALL, "arguments": '{"sea": "Dead"}'}]),
            },
            {"role": "tool", "name": "depth", "content": "304"},
            A,
        ],
        "tools": json.dumps([{**TOOL, "parameters": '{"type": "object"}'}]),
    },
    "function_call": {
        "messages": [
            Q,
            {"role": "assistant", "content": None, "function_call": CALL},
            {"role": "function", "name": "depth", "content": "304"},
            A,
        ],
        "functions": [TOOL],
    },
    "ShareGPT": {
        "conversations": [
            {"from": "human", "value": Q["content"]},
            {"from": "function_call", "value": json.dumps(CALL)},
            {"from": "observation", "value": "304"},
            {"from": "gpt", "value": A["content"]},
        ],
        "tools": json.dumps([TOOL]),
    },
    "prompt and completion": {
        "prompt": [Q],
        "completion": [
            {"role": "assistant", "tool_calls": [{"type": "function", "function": CALL}]},
            {"role": "tool", "content": "304"},
            A,
        ],
        "tools": [{"type": "function", "function": TOOL}],
    },
}


@pytest.mark.parametrize("name", CALLING)
def test_calls_are_learned_and_results_are_not(name: str) -> None:
    learned = [CALLED, "The Dead Sea.<|im_end|>"]
    whole = (
        f"{TOOL_WRITTEN}{TURN}{CALLED}\n<|im_start|>tool\n304<|im_end|>\n<|im_start|>assistant\n"
        "The Dead Sea.<|im_end|>\n<|endoftext|>"
    )
    tokenizer = make_tokenizer("chatml_other_eos", chat_template=TOOLS)
    assert runs(CALLING[name], tokenizer) == parts(whole, learned)


def test_developer_stays_where_the_template_names_it() -> None:
    tokenizer = make_tokenizer(chat_template="{# developer #}" + CHATML)
    row = {"messages": [{"role": "developer", "content": "Be brief."}, Q, A]}
    assert runs(row, tokenizer)[0] == (False, f"<|im_start|>developer\nBe brief.<|im_end|>\n{TURN}")


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ({"prompt": [Q], "completion": [Q]}, NO_ANSWER),
        ({"instruction": "Name a sea.", "output": " "}, BLANK_ANSWER),
        ({"conversations": [{"from": "human", "value": "Hi"}]}, NO_ANSWER),
    ],
)
def test_record_without_an_answer_is_skipped_and_counted(row: Row, reason: str) -> None:
    document = document_from_row(row, ReadingOptions(), "here")
    encoded = encode_batch([document], make_tokenizer("chatml"))
    assert (encoded.lengths.tolist(), encoded.adjustments) == ([0], {reason: 1})


def test_history_needs_a_chat_template() -> None:
    row = {"instruction": "And?", "output": "Yes.", "history": [["Hi", "Hello."]]}
    document = document_from_row(row, ReadingOptions(), "a.jsonl line 4")
    with pytest.raises(ValueError, match=r"^a\.jsonl line 4: the column 'history'.* Set data"):
        encode_batch([document], make_tokenizer("chatml", chat_template=""))
