"""Names of roles in chats."""

from typing import Any

ASSISTANT = "assistant"
ROLES = ("system", "developer", "user", ASSISTANT, "tool")
# Roles of the assistant that have a tool call as content.
CALLS = ("function_call", "tool_call")

_VARIANTS = {
    "user": ("human",),
    ASSISTANT: ("ai", "bard", "bing", "bot", "chatbot", "chatgpt", "gpt", "model", *CALLS),
    "tool": ("function_response", "observation", "tool_response"),
}
_STANDARD = {name: role for role, names in _VARIANTS.items() for name in (role, *names)}


def standard_role(name: str) -> str:
    """Return the role that chat templates know for a name; other names as they are.

    >>> standard_role("human"), standard_role("GPT"), standard_role("narrator")
    ('user', 'assistant', 'narrator')
    """
    return _STANDARD.get(name.lower(), name)


def with_known_roles(messages: list[dict[str, Any]], template: str) -> list[dict[str, Any]]:
    """Give messages of a developer the role "system", unless a template names the developer.

    >>> with_known_roles([{"role": "developer"}], "{{ messages[0].role }}")
    [{'role': 'system'}]
    """
    if "developer" in template:
        return messages
    return [
        {**message, "role": "system"} if message["role"] == "developer" else message
        for message in messages
    ]
