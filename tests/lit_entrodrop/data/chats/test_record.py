import json
from typing import Any

import pytest

from lit_entrodrop.data.chats.record import Chat, read_chat

CALL = {"type": "function", "function": {"name": "w", "arguments": {"city": "X"}}}


def message(**message: Any) -> dict[str, Any]:
    return {"role": "assistant", **message}


@pytest.mark.parametrize(
    "call",
    [
        CALL,
        {"function": {"name": "w", "arguments": '{"city": "X"}'}},
        {"name": "w", "arguments": {"city": "X"}},
    ],
)
def test_calls_have_one_form(call: dict[str, Any]) -> None:
    for turn in (
        message(tool_calls=[call]),
        message(tool_calls=json.dumps([call])),
        message(content=None, function_call=call),
        {"from": "function_call", "value": json.dumps(call)},
        {"from": "tool_call", "value": json.dumps([call])},
    ):
        [read] = read_chat({"messages": [turn]}).messages
        assert read == message(content="", tool_calls=[CALL])


WEATHER = {"name": "w", "parameters": {"type": "object"}}


@pytest.mark.parametrize(
    "tool",
    [
        {"type": "function", "function": WEATHER},
        {"type": "function", **WEATHER},
        {**WEATHER, "parameters": '{"type": "object"}'},
        json.dumps(WEATHER),
    ],
)
def test_tools_have_one_form(tool: Any) -> None:
    row = {"messages": [message(content="yo")], "tools": [tool]}
    assert read_chat(row).tools == [{"type": "function", "function": WEATHER}]
    assert read_chat({**row, "tools": json.dumps([tool])}) == read_chat(row)


def test_result_of_a_function_is_a_tool_in_the_format_of_openai_alone() -> None:
    result = {"name": "w", "content": "22"}
    roles = [{"role": "function", **result}, {"from": "function", **result}]
    read = read_chat({"messages": roles}).messages
    assert [turn["role"] for turn in read] == ["tool", "function"]


def test_chat_without_tools_is_a_list_as_before() -> None:
    chat = [message(content="yo", name=None)]
    assert read_chat({"messages": chat}).to_json() == '[{"role": "assistant", "content": "yo"}]'
    assert read_chat({"messages": json.dumps(chat), "tools": "[]"}) == read_chat({"messages": chat})
    with_tools = Chat([message(content="yo")], [{"name": "w"}])
    assert Chat.from_json(with_tools.to_json()) == with_tools


@pytest.mark.parametrize(
    ("row", "named"),
    [
        (
            {"messages": [message(content=[{"type": "image_url", "image_url": "x"}])]},
            ["message 1", "'image_url'"],
        ),
        ({"messages": [message(content=3)]}, ["message 1", "'int'"]),
        ({"messages": [message(content={"a": "b"})]}, ["'content'", "['a']"]),
        (
            {"messages": [message(parts=[{"text": "yo"}])]},
            ["expected 'content'", "['parts', 'role']"],
        ),
        ({"messages": [message(tool_calls="w()")]}, ["'tool_calls' to be a list"]),
        ({"messages": [message(tool_calls=[{"id": "c1"}])]}, ["'name' and 'arguments'"]),
        (
            {"messages": [message(tool_calls=[{"name": "w", "arguments": "{city"}])]},
            ["'w'", "'{city'"],
        ),
        ({"messages": [{"from": "function_call", "value": "w()"}]}, ["a tool call", "'w()'"]),
        ({"messages": [message(content=None, refusal="No.")]}, ["'refusal'", "'content'"]),
        ({"messages": [message(content="yo")], "tools": {"name": "w"}}, ["'tools'", "dict"]),
        ({"messages": [message(content="yo")], "functions": 3}, ["'functions'", "int"]),
    ],
)
def test_what_would_be_lost_is_refused(row: dict[str, Any], named: list[str]) -> None:
    with pytest.raises(ValueError) as caught:  # noqa: PT011
        read_chat(row)
    assert all(part in str(caught.value) for part in named), caught.value
