"""Read a chat from a record, in the format that chat templates expect."""

import json
from collections.abc import Mapping
from typing import Any, NamedTuple

from lit_entrodrop.data.chats.flags import DETAIL, with_flags

Message = dict[str, Any]

ASSISTANT = "assistant"
# Keys of a message that have no text which a template could render.
_SIDE_KEYS = {"role", "name", "id", "tool_call_id", "type", "weight", DETAIL}
REASONING_KEYS = ("reasoning_content", "thinking", "reasoning")
# Columns and keys that belong to a chat, but that chat templates do not read.
_UNREAD_COLUMNS = {
    "system": "Write it as the first message, with the role 'system', or remove the column.",
    "functions": "Write them as 'tools'.",
    "documents": "Write their text in a message, or remove the column.",
}
_UNREAD_KEYS = {"function_call": "Write it in 'tool_calls'.", "refusal": "Write it as 'content'."}


class Chat(NamedTuple):
    """A chat.

    Attributes:
        messages: Messages with a role and a text; an assistant's may have tool calls, whose
            arguments are objects. A weight of 0 or 1 says whether the loss counts a message.
        tools: JSON schemas of the tools that the assistant may call.
        prompt_messages: Number of messages, from the first, that are the prompt of a completion.
    """

    messages: list[Message]
    tools: list[dict[str, Any]] | None = None
    prompt_messages: int = 0

    def to_json(self) -> str:
        """Write the chat as JSON: what is not the default, or only its messages."""
        value = {name: value for name, value in self._asdict().items() if value}
        return json.dumps(self.messages if len(value) == 1 else value, ensure_ascii=False)

    @classmethod
    def from_json(cls, text: str) -> "Chat":
        """Read what `to_json` wrote.

        >>> Chat.from_json('[{"role": "user", "content": "Why?"}]').tools is None
        True
        """
        value = json.loads(text)
        return cls(**value) if isinstance(value, dict) else cls(value)

    def with_written_arguments(self) -> "Chat":
        """Return the chat with the arguments of tool calls as JSON text."""
        return self._replace(messages=[_with_written_arguments(turn) for turn in self.messages])


def read_chat(row: Mapping[str, Any]) -> Chat:
    """Read the columns `messages` and `tools`.

    Text parts are joined, null content is empty text, and JSON strings are parsed where a list or
    an object is expected.

    Raises:
        ValueError: If something in the chat is not text, or would not reach the template.

    >>> parts = [{"type": "text", "text": "Why"}, {"type": "text", "text": "?"}]
    >>> read_chat({"messages": [{"role": "user", "content": parts}]}).messages
    [{'role': 'user', 'content': 'Why?'}]
    """
    _refuse_unread("column", row, _UNREAD_COLUMNS)
    messages, tools = _parsed(row["messages"]), _parsed(row.get("tools"))
    if not (
        isinstance(messages, list)
        and messages
        and all(isinstance(turn, dict) and isinstance(turn.get("role"), str) for turn in messages)
    ):
        got = messages[0] if isinstance(messages, list) and messages else messages
        raise ValueError(
            "expected 'messages' to be a non-empty list of records with a 'role', got "
            f"{sorted(got) if isinstance(got, dict) else repr(got)[:80]}. Write it as "
            '[{"role": "user", "content": "..."}, ...].'
        )
    if tools and not (isinstance(tools, list) and all(isinstance(tool, dict) for tool in tools)):
        raise ValueError(
            "expected 'tools' to be a list of JSON schemas, got "
            f"{type(tools).__name__}. Write one record for each tool."
        )
    read = [_numbered(number, turn) for number, turn in enumerate(messages, start=1)]
    return Chat(read, tools or None)


def _numbered(number: int, turn: Message) -> Message:
    try:
        return _message(turn)
    except ValueError as error:
        raise ValueError(f"message {number}: {error}") from error


def _message(turn: Message) -> Message:
    # Templates test for the presence of keys.
    message = with_flags({key: value for key, value in turn.items() if value is not None})
    _refuse_unread("key", message, _UNREAD_KEYS)
    calls = _parsed(message.pop("tool_calls", None))
    if calls:
        if not isinstance(calls, list):
            raise ValueError(f"expected 'tool_calls' to be a list, got {type(calls).__name__}.")
        message["tool_calls"] = [_tool_call(call) for call in calls]
    elif "content" not in message and message.keys() - _SIDE_KEYS - set(REASONING_KEYS):
        raise ValueError(f"expected 'content' or 'tool_calls', got {sorted(message)}. Rename it.")
    message.setdefault("content", "")
    for key in message.keys() & {"content", *REASONING_KEYS}:
        message[key] = _text(message[key])
    return message


def _text(content: object) -> str:
    if isinstance(content, str):
        return content
    parts: list[Any] = content if isinstance(content, list) else [content]
    texts: list[Any] = [part.get("text") if isinstance(part, dict) else part for part in parts]
    for part, text in zip(parts, texts, strict=True):
        if not isinstance(text, str):
            kind = part.get("type", sorted(part)) if isinstance(part, dict) else type(part).__name__
            raise ValueError(
                f"expected 'content' to be text or a list of text parts, got {kind!r}. Causal "
                "language models learn text: write it as text or remove the row."
            )
    return "".join(texts)


def _tool_call(call: Any) -> dict[str, Any]:
    function = call.get("function", call) if isinstance(call, dict) else None
    if not isinstance(function, dict) or not isinstance(function.get("name"), str):
        raise ValueError(
            f"expected a tool call with a 'name' and 'arguments', got {call!r:.80}. Write it as "
            '{"type": "function", "function": {"name": "...", "arguments": {...}}}.'
        )
    arguments = _parsed(function.get("arguments")) or {}
    if not isinstance(arguments, dict):
        raise ValueError(
            f"expected the arguments of the tool call {function['name']!r} to be an object, got "
            f"{arguments!r:.80}. Write them as a JSON object."
        )
    call = call if function is not call else {}
    return {"type": "function", **call, "function": {**function, "arguments": arguments}}


def _with_written_arguments(message: Message) -> Message:
    if "tool_calls" not in message:
        return message
    calls = [
        {
            **call,
            "function": {
                **call["function"],
                "arguments": json.dumps(call["function"]["arguments"], ensure_ascii=False),
            },
        }
        for call in message["tool_calls"]
    ]
    return {**message, "tool_calls": calls}


def _parsed(value: Any) -> Any:
    """Parse a value that some data sets store as JSON text; other text is returned as it is."""
    if not isinstance(value, str):
        return value
    try:
        return json.loads(value)
    except (ValueError, RecursionError):
        return value


def _refuse_unread(what: str, record: Mapping[str, Any], unread: Mapping[str, str]) -> None:
    for name, remedy in unread.items():
        if record.get(name):
            raise ValueError(f"the {what} {name!r} is part of the chat, but not read. {remedy}")
