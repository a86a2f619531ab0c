"""Read a chat from a record, in the format that chat templates expect."""

import json
from collections.abc import Mapping
from typing import Any, NamedTuple

from lit_entrodrop.data.chats.flags import DETAIL, with_flags
from lit_entrodrop.data.chats.roles import CALLS, standard_role
from lit_entrodrop.data.chats.tools import (
    parsed,
    tool_call,
    tool_schemas,
    with_written_arguments,
)

Message = dict[str, Any]

# Keys of a message that have no text which a template could render.
_SIDE_KEYS = {"role", "name", "id", "tool_call_id", "type", "weight", DETAIL}
REASONING_KEYS = ("reasoning_content", "thinking", "reasoning")
# In the formats of OpenAI and ShareGPT.
ROLE_KEYS = ("role", "from")
_OPENAI_KEYS = {"from": "role", "value": "content"}


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


def read_chat(row: Mapping[str, Any], column: str = "messages") -> Chat:
    """Read a column of messages, with the columns `system`, `tools` and `functions`.

    Text parts are joined, null content is empty text, and JSON strings are parsed where a list or
    an object is expected. Keys and roles of ShareGPT become those of OpenAI.

    Args:
        row: A record without nulls.
        column: Name of the column with messages.

    Raises:
        ValueError: If something in the chat is not text, or would not reach the template.

    >>> parts = [{"type": "text", "text": "Why"}, {"type": "text", "text": "?"}]
    >>> read_chat({"messages": [{"from": "human", "value": parts}]}).messages
    [{'role': 'user', 'content': 'Why?'}]
    """
    messages = parsed(row[column])
    if not (isinstance(messages, list) and messages and all(map(_has_role, messages))):
        got = messages[0] if isinstance(messages, list) and messages else messages
        raise ValueError(
            f"expected {column!r} to be a non-empty list of records with a 'role', got "
            f"{sorted(got) if isinstance(got, dict) else repr(got)[:80]}. Write it as "
            '[{"role": "user", "content": "..."}, ...].'
        )
    read = [_numbered(number, turn) for number, turn in enumerate(messages, start=1)]
    if system := row.get("system"):
        if read[0]["role"] == "system":
            raise ValueError(
                f"expected one system prompt, got one in 'system' and one in {column!r}. Remove "
                "one."
            )
        read.insert(0, {"role": "system", "content": _text(system)})
    tools = [*tool_schemas(row, "tools"), *tool_schemas(row, "functions")]
    return Chat(read, tools or None)


def is_chat(value: object) -> bool:
    """Return whether a value is a list of messages, in any format.

    >>> is_chat([{"from": "human", "value": "Why?"}])
    True
    """
    return isinstance(value, list) and bool(value) and all(map(_has_role, value))


def _has_role(turn: object) -> bool:
    return isinstance(turn, dict) and any(isinstance(turn.get(key), str) for key in ROLE_KEYS)


def _numbered(number: int, turn: Message) -> Message:
    try:
        return _message(turn)
    except ValueError as error:
        raise ValueError(f"message {number}: {error}") from error


def _message(turn: Message) -> Message:
    # Templates test for the presence of keys.
    message = {_OPENAI_KEYS.get(key, key): turn[key] for key in turn if turn[key] is not None}
    role = message["role"]
    # OpenAI's former name of a result. In the format of ShareGPT it may also be a call.
    message["role"] = "tool" if turn.get("role") == "function" else standard_role(role)
    message = with_flags(message)
    if message.get("refusal"):
        raise ValueError("the key 'refusal' is not read. Write it as 'content'.")
    if calls := _calls(message, role):
        message["tool_calls"] = [tool_call(call) for call in calls]
    elif "content" not in message and message.keys() - _SIDE_KEYS - set(REASONING_KEYS):
        raise ValueError(f"expected 'content' or 'tool_calls', got {sorted(message)}. Rename it.")
    message.setdefault("content", "")
    for key in message.keys() & {"content", *REASONING_KEYS}:
        message[key] = _text(message[key])
    return message


def _calls(message: Message, role: str) -> list[Any]:
    """Take the tool calls out of a message."""
    single = message.pop("function_call", None)
    calls = parsed(message.pop("tool_calls", None)) or single or []
    if role in CALLS:
        content = parsed(message.pop("content", None))
        calls = content if isinstance(content, list) else [content]
    if isinstance(calls, dict):
        return [calls]
    if not isinstance(calls, list):
        raise ValueError(f"expected 'tool_calls' to be a list, got {type(calls).__name__}.")
    return calls


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


def _with_written_arguments(message: Message) -> Message:
    if "tool_calls" not in message:
        return message
    return {**message, "tool_calls": [with_written_arguments(c) for c in message["tool_calls"]]}
