"""Check that a rendered chat contains everything in its record."""

from collections.abc import Mapping
from typing import Any

from transformers import PreTrainedTokenizerBase

from lit_entrodrop.data.chats.record import REASONING_KEYS, Chat, Message
from lit_entrodrop.data.chats.rendering import name_of_template, render, template_of
from lit_entrodrop.data.chats.roles import ASSISTANT, ROLES
from lit_entrodrop.data.chats.turns import OTHER, find_answer
from lit_entrodrop.data.tokens.encoded import Span


def check_roles(chat: Chat, tokenizer: PreTrainedTokenizerBase) -> None:
    """Refuse a role that is neither common nor in the template.

    Raises:
        ValueError: If there is such a role.
    """
    roles = [message["role"] for message in chat.messages]
    template = template_of(chat, tokenizer)
    for number, role in enumerate(roles, start=1):
        is_in_template = f"'{role}'" in template or f'"{role}"' in template
        if role not in ROLES and not (ASSISTANT in roles and is_in_template):
            raise ValueError(
                f"message {number}: expected one of the roles {', '.join(ROLES)}, got {role!r}. "
                f"Rename it; the loss counts only messages of the role {ASSISTANT!r}."
            )


def check_tools(chat: Chat, text: str, tokenizer: PreTrainedTokenizerBase) -> None:
    """Check that a rendered chat contains its tools and tool calls.

    Raises:
        ValueError: If the template leaves them out.
    """
    if chat.tools and _ignores(chat._replace(tools=None), text, tokenizer):
        raise _incomplete("the tools", tokenizer)
    for number, message in enumerate(chat.messages):
        for call in message.get("tool_calls", ()):
            if _ignores(_with_other_arguments(chat, number, call), text, tokenizer):
                name = call["function"]["name"]
                raise _incomplete(f"the tool call {name!r} or its arguments", tokenizer)


def check_messages(
    chat: Chat, text: str, turns: Mapping[int, Span], tokenizer: PreTrainedTokenizerBase
) -> None:
    """Check that a rendered chat contains its messages and the reasoning of the last one.

    Args:
        chat: The chat.
        text: The rendered chat.
        turns: Characters of each assistant's turn, by the index of its message.
        tokenizer: Tokenizer with the template.

    Raises:
        ValueError: If the template leaves out any of these.
    """
    place = 0
    for number, message in enumerate(chat.messages):
        following = [start for turn, (start, _) in turns.items() if turn > number]
        start, end = turns.get(number, (place, min(following, default=len(text))))
        found = find_answer(message, text, start, end)
        place = max(found, end if number in turns else start)
        # A template may also write a message elsewhere, or in another form.
        if found < 0 and _cuts(chat, number, tokenizer):
            part = f"text of message {number + 1}, of the role {message['role']!r}"
            raise _incomplete(part, tokenizer)
    if len(chat.messages) - 1 in reasoning_left_out(chat, text, turns):
        raise _incomplete("the reasoning of the last message", tokenizer)


def reasoning_left_out(chat: Chat, text: str, turns: Mapping[int, Span]) -> list[int]:
    """Return the indices of the messages whose reasoning is not in a rendered chat."""
    return [
        turn
        for turn, span in turns.items()
        if _reasoning_of(chat.messages[turn]) not in text[slice(*span)]
    ]


def _ignores(changed: Chat, text: str, tokenizer: PreTrainedTokenizerBase) -> bool:
    """Return whether a chat is rendered as before it was changed."""
    try:
        return render(changed, tokenizer) == text
    except ValueError:
        return False


def _cuts(chat: Chat, number: int, tokenizer: PreTrainedTokenizerBase) -> bool:
    """Return whether a template leaves out the beginning or the end of a message."""
    messages = list(chat.messages)
    reasoning, mark, answer = messages[number]["content"].rpartition("</think>")
    marked = f"{reasoning}{mark}{OTHER}{answer}{OTHER}"
    messages[number] = {**messages[number], "content": marked}
    try:
        return render(chat._replace(messages=messages), tokenizer).count(OTHER) < 2
    except ValueError:
        return False


def _with_other_arguments(chat: Chat, number: int, call: dict[str, Any]) -> Chat:
    function = call["function"]
    is_text = isinstance(function["arguments"], str)
    other = {**call, "function": {**function, "arguments": OTHER if is_text else {OTHER: OTHER}}}
    messages = list(chat.messages)
    calls = [other if each is call else each for each in messages[number]["tool_calls"]]
    messages[number] = {**messages[number], "tool_calls": calls}
    return chat._replace(messages=messages)


def _incomplete(part: str, tokenizer: PreTrainedTokenizerBase) -> ValueError:
    return ValueError(
        f"{name_of_template(tokenizer)} leaves out {part}. Use a template that "
        "renders it, or remove it from the corpus."
    )


def _reasoning_of(message: Message) -> str:
    inline = message["content"].rpartition("</think>")[0].rpartition("<think>")[2]
    reasoning: str = next((message[key] for key in REASONING_KEYS if key in message), inline)
    return reasoning.strip()
