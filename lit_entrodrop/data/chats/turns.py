"""Locate the assistant's turns in a rendered chat."""

import json
import os
import re
from dataclasses import dataclass

from transformers import PreTrainedTokenizerBase

from lit_entrodrop.data.chats.record import REASONING_KEYS, Chat, Message
from lit_entrodrop.data.chats.rendering import name_of_template, render
from lit_entrodrop.data.chats.roles import ASSISTANT
from lit_entrodrop.data.tokens.encoded import Span
from lit_entrodrop.data.tokens.special_tokens import any_of, special_tokens

# A private-use character, which no chat contains.
OTHER = "\ue000"


def locate_turns(
    chat: Chat, text: str, marked: list[Span] | None, tokenizer: PreTrainedTokenizerBase
) -> dict[int, Span]:
    """Locate the turns of the assistant in a rendered chat.

    Without marks, a turn is the text that the template adds to the messages before it, without the
    generation prompt and without space after the special token that ends the turn.

    Args:
        chat: The chat.
        text: The rendered chat.
        marked: Characters that `{% generation %}` tags enclose, if the template has such tags.
        tokenizer: Tokenizer with the template.

    Returns:
        The characters of each turn, by the index of its message.

    Raises:
        ValueError: If the turns cannot be located.
    """
    turns = [n for n, message in enumerate(chat.messages) if message["role"] == ASSISTANT]
    if marked is None:
        try:
            return _TurnLocator(chat, tokenizer, text).locate_all(turns)
        except ValueError:
            # Many templates leave out the reasoning of earlier turns.
            brief = _without_earlier_reasoning(chat)
            if brief == chat or render(brief, tokenizer) != text:
                raise
            return _TurnLocator(brief, tokenizer, text).locate_all(turns)
    spans = _merged(marked)
    if len(spans) != len(turns) or not all(
        find_answer(chat.messages[turn], text, *span) >= 0
        for turn, span in zip(turns, spans, strict=True)
    ):
        raise ValueError(
            f"{name_of_template(tokenizer)} does not enclose each of "
            f"{len(turns)} answers in {{% generation %}} and {{% endgeneration %}}. Correct it."
        )
    return dict(zip(turns, spans, strict=True))


def find_answer(message: Message, text: str, start: int, end: int) -> int:
    """Find the text of a message, without its reasoning, in a part of a rendered chat.

    Returns:
        The index after it, or -1. Templates may write it as JSON.

    >>> find_answer({"content": "<think>Well.</think> Yes."}, "<think></think>Yes.", 0, 19)
    19
    """
    answer = message["content"].rpartition("</think>")[2].strip()
    for form in (answer, json.dumps(answer, ensure_ascii=False)[1:-1]):
        if (place := text.find(form, start, end)) >= 0:
            return place + len(form)
    return -1


def locate_body(chat: Chat, number: int, text: str, tokenizer: PreTrainedTokenizerBase) -> Span:
    """Locate the text of a message in a rendered chat: what changes with it.

    Raises:
        ValueError: If it cannot be located.
    """
    messages = list(chat.messages)
    messages[number] = {**messages[number], "content": OTHER}
    before, found, after = render(chat._replace(messages=messages), tokenizer).partition(OTHER)
    end = len(text) - len(after)
    if not (found and text.startswith(before) and text.endswith(after) and len(before) <= end):
        raise ValueError(
            f"{name_of_template(tokenizer)} does not write the text of message "
            f"{number + 1}, of the role {messages[number]['role']!r}, once. It is needed to count "
            "it in the loss. Use another template, or exclude the message."
        )
    return len(before), end


@dataclass(frozen=True)
class _TurnLocator:
    """Locator of turns in a text, by rendering the first messages of the chat alone."""

    chat: Chat
    tokenizer: PreTrainedTokenizerBase
    text: str

    def locate_all(self, turns: list[int]) -> dict[int, Span]:
        """Return the characters of turns, by the index of the message."""
        return {turn: self.locate(turn) for turn in turns}

    def locate(self, turn: int) -> Span:
        """Return the characters of the turn of a message.

        Raises:
            ValueError: If the template refuses the first messages alone, or rewrites earlier turns.
        """
        start = self._start(turn)
        end = None if start is None else self._end(turn, start)
        if start is None or end is None:
            raise ValueError(
                f"{name_of_template(self.tokenizer)} rewrites earlier turns, at "
                f"message {turn + 1}: {self.chat.messages[turn]!r:.80}. Mark the assistant's part "
                "of the template with {% generation %} and {% endgeneration %}."
            )
        without_space = self.text[start:end].rstrip()
        ends_itself = without_space.endswith(special_tokens(self.tokenizer))
        return start, start + len(without_space) if ends_itself else end

    def _start(self, turn: int) -> int | None:
        if not turn:
            # What precedes the first answer, such as the template's system prompt, is not learned.
            other = [{"role": ASSISTANT, "content": OTHER}, *self.chat.messages[1:]]
            return _shared(self.text, render(self.chat._replace(messages=other), self.tokenizer))
        prompt = self._render_first(turn, prompt=True)
        start = _shared(self.text, prompt)
        complete = start == len(prompt) or self.text.startswith(self._render_first(turn))
        return start if complete else None

    def _end(self, turn: int, start: int) -> int | None:
        message = self.chat.messages[turn]
        last = turn + 1 == len(self.chat.messages)
        through = self.text if last else self._render_first(turn + 1)
        if self.text.startswith(through):
            return len(through)
        # A template may write the last turn with more before the answer, such as reasoning ...
        end = start + _overlap(through[start:], self.text[start:])
        if end > start and find_answer(message, self.text, start, end) >= 0:
            return end
        # ... or end it with another token.
        behind = find_answer(message, self.text, start, _shared(self.text, through))
        end_token = any_of(special_tokens(self.tokenizer)).pattern
        ended = re.compile(rf"\s*{end_token}").match(self.text, max(behind, 0))
        plain = behind >= 0 and "tool_calls" not in message
        return ended.end() if plain and ended else None

    def _render_first(self, count: int, prompt: bool = False) -> str:
        try:
            first = self.chat._replace(messages=self.chat.messages[:count])
            return render(first, self.tokenizer, prompt)
        except ValueError as error:
            raise ValueError(
                f"{error} (when its first {count} of {len(self.chat.messages)} messages were "
                "rendered alone, to locate an answer)"
            ) from error


def _without_earlier_reasoning(chat: Chat) -> Chat:
    """Return a chat without the reasoning before its last question."""
    last = max((n for n, each in enumerate(chat.messages) if each["role"] == "user"), default=0)
    earlier = [
        {key: value for key, value in message.items() if key not in REASONING_KEYS}
        | {"content": message["content"].rpartition("</think>")[2].lstrip()}
        for message in chat.messages[:last]
    ]
    return chat._replace(messages=earlier + chat.messages[last:])


def _merged(spans: list[Span]) -> list[Span]:
    """Merge adjacent spans; a turn may consist of several blocks."""
    merged: list[Span] = []
    for start, end in spans:
        if merged and merged[-1][1] == start:
            start = merged.pop()[0]
        merged.append((start, end))
    return merged


def _shared(text: str, other: str) -> int:
    return len(os.path.commonprefix([text, other]))  # noqa: RUF071 (characters, not folders)


def _overlap(text: str, following: str) -> int:
    """Return the length of the longest end of a text with which another one starts."""
    cuts = (cut for cut, character in enumerate(text) if character == following[:1])
    return next((len(text) - cut for cut in cuts if following.startswith(text[cut:])), 0)
