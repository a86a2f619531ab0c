"""Tools in chats: their schemas, and the calls of them."""

import json
from collections.abc import Mapping
from typing import Any

JSONObject = dict[str, Any]


def parsed(value: Any) -> Any:
    """Parse a value that some datasets store as JSON text; other text is returned as it is.

    >>> parsed("[1]"), parsed("one")
    ([1], 'one')
    """
    if not isinstance(value, str):
        return value
    try:
        return json.loads(value)
    except (ValueError, RecursionError):
        return value


def tool_schemas(row: Mapping[str, Any], column: str) -> list[JSONObject]:
    """Read a column of JSON schemas of tools, in the form that chat templates expect.

    Raises:
        ValueError: If it has something else.

    >>> tool_schemas({"functions": [{"name": "weather"}]}, "functions")
    [{'type': 'function', 'function': {'name': 'weather'}}]
    """
    tools = parsed(row.get(column)) or []
    if isinstance(tools, list):
        tools = [parsed(tool) for tool in tools]
    if not (isinstance(tools, list) and all(isinstance(tool, dict) for tool in tools)):
        raise ValueError(
            f"expected {column!r} to be a list of JSON schemas, got {type(tools).__name__}. Write "
            "one record for each tool."
        )
    return [_schema(tool) for tool in tools]


def tool_call(call: Any) -> JSONObject:
    """Read a call in any of the forms of OpenAI, with arguments as an object or as JSON text.

    Raises:
        ValueError: If it has no name, or other arguments.

    >>> tool_call({"name": "weather", "arguments": '{"city": "Rome"}'})["function"]
    {'name': 'weather', 'arguments': {'city': 'Rome'}}
    """
    function = call.get("function", call) if isinstance(call, dict) else None
    if not isinstance(function, dict) or not isinstance(function.get("name"), str):
        raise ValueError(
            f"expected a tool call with a 'name' and 'arguments', got {call!r:.80}. Write it as "
            '{"type": "function", "function": {"name": "...", "arguments": {...}}}.'
        )
    arguments = parsed(function.get("arguments")) or {}
    if not isinstance(arguments, dict):
        raise ValueError(
            f"expected the arguments of the tool call {function['name']!r} to be an object, got "
            f"{arguments!r:.80}. Write them as a JSON object."
        )
    outer = call if function is not call else {}
    return {"type": "function", **outer, "function": {**function, "arguments": arguments}}


def with_written_arguments(call: JSONObject) -> JSONObject:
    """Return a call with its arguments as JSON text."""
    function = call["function"]
    written = json.dumps(function["arguments"], ensure_ascii=False)
    return {**call, "function": {**function, "arguments": written}}


def _schema(tool: JSONObject) -> JSONObject:
    if "function" in tool or not isinstance(tool.get("name"), str):
        outer, function = tool, tool.get("function")
    else:
        outer, function = {}, {key: value for key, value in tool.items() if key != "type"}
    if not isinstance(function, dict):
        return tool
    if "parameters" in function:
        function = {**function, "parameters": parsed(function["parameters"])}
    return {"type": "function", **outer, "function": function}
