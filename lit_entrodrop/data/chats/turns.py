"""Locate the assistant's turns in a rendered chat."""

import json
import os

from transformers import PreTrainedTokenizerBase

from lit_entrodrop.data.chats.record import ASSISTANT, Chat, Message
from lit_entrodrop.data.chats.rendering import Span, render, render_marked
from lit_entrodrop.data.special_tokens import special_tokens

# A private-use character, which no chat contains.
OTHER = "\ue000"


def render_turns(chat: Chat, tokenizer: PreTrainedTokenizerBase) -> tuple[str, dict[int, Span]]:
    """Render a chat, and locate the turns of the assistant.

    Templates with `{% generation %}` tags mark these turns. For other templates, a turn is the text
    that the template adds to the messages before it, without the generation prompt and without
    space after the special token that ends the turn.

    Returns:
        The text, and the characters of each turn by the index of its message.

    Raises:
        ValueError: If the template refuses the chat, or its turns cannot be located.
    """
    turns = [n for n, message in enumerate(chat.messages) if message["role"] == ASSISTANT]
    marked = render_marked(chat, tokenizer)
    if marked is None:
        text = render(chat, tokenizer)
        return text, {turn: _locate(turn, text, chat, tokenizer) for turn in turns}
    text, spans = marked
    if len(spans) != len(turns) or not all(
        find_answer(chat.messages[turn], text, *span) >= 0
        for turn, span in zip(turns, spans, strict=True)
    ):
        raise ValueError(
            f"the chat template of {tokenizer.name_or_path!r} does not enclose each of "
            f"{len(turns)} answers in {{% generation %}} and {{% endgeneration %}}. Correct it."
        )
    return text, dict(zip(turns, spans, strict=True))


def find_answer(message: Message, text: str, start: int, end: int) -> int:
    """Find the text of a message, apart from its thoughts, in a part of a rendered chat.

    Returns:
        The place behind it, or -1. Templates may write it as JSON.

    >>> find_answer({"content": "<think>Well.</think> Yes."}, "<think></think>Yes.", 0, 19)
    19
    """
    answer = message["content"].rpartition("</think>")[2].strip()
    for form in (answer, json.dumps(answer, ensure_ascii=False)[1:-1]):
        if (place := text.find(form, start, end)) >= 0:
            return place + len(form)
    return -1


def _locate(turn: int, text: str, chat: Chat, tokenizer: PreTrainedTokenizerBase) -> Span:
    through = render(Chat(chat.messages[: turn + 1], chat.tools), tokenizer)
    start = _start(turn, text, chat, tokenizer)
    end = len(through)
    if not text.startswith(through):
        # A template may write the last turn in another way, for example with its thoughts.
        end = start + _overlap(through[start:], text[start:])
        if end == start or find_answer(chat.messages[turn], text, start, end) < 0:
            raise _rewritten(turn, chat, tokenizer)
    without_space = text[start:end].rstrip()
    if without_space.endswith(special_tokens(tokenizer)):
        end = start + len(without_space)
    return start, end


def _start(turn: int, text: str, chat: Chat, tokenizer: PreTrainedTokenizerBase) -> int:
    if not turn:
        # What precedes the first answer, such as a system prompt of the template, is not learned.
        other = [{"role": ASSISTANT, "content": OTHER}, *chat.messages[1:]]
        return _shared(text, render(Chat(other, chat.tools), tokenizer))
    earlier = Chat(chat.messages[:turn], chat.tools)
    prompt = render(earlier, tokenizer, prompt=True)
    start = _shared(text, prompt)
    if start < len(prompt) and not text.startswith(render(earlier, tokenizer)):
        raise _rewritten(turn, chat, tokenizer)
    return start


def _shared(text: str, other: str) -> int:
    return len(os.path.commonprefix([text, other]))  # noqa: RUF071 (characters, not folders)


def _overlap(text: str, following: str) -> int:
    """Return the length of the longest end of a text with which another one starts."""
    cuts = (cut for cut, character in enumerate(text) if character == following[:1])
    return next((len(text) - cut for cut in cuts if following.startswith(text[cut:])), 0)


def _rewritten(turn: int, chat: Chat, tokenizer: PreTrainedTokenizerBase) -> ValueError:
    return ValueError(
        f"the chat template of {tokenizer.name_or_path!r} rewrites earlier turns, at message "
        f"{turn + 1}: {chat.messages[turn]!r:.80}. Mark the assistant's part of the template "
        "with {% generation %} and {% endgeneration %}."
    )
