"""Characters of a rendered chat that the loss counts."""

import re
from collections.abc import Mapping
from typing import Any

from transformers import PreTrainedTokenizerBase

from lit_entrodrop.data.chats.flags import DETAIL, SYSTEM
from lit_entrodrop.data.chats.record import Chat
from lit_entrodrop.data.chats.roles import ASSISTANT
from lit_entrodrop.data.chats.turns import locate_body
from lit_entrodrop.data.label_settings import TrainOn
from lit_entrodrop.data.tokens.encoded import Span
from lit_entrodrop.data.tokens.special_tokens import MARK, any_of, special_tokens


def counted_messages(chat: Chat, train_on: TrainOn) -> list[bool]:
    """Return which messages count; the weight of a message takes precedence over `train_on`.

    >>> chat = Chat([{"role": role} for role in ("system", "user", "assistant", "assistant")])
    >>> [counted_messages(chat, train_on) for train_on in ("all", "last_turn")]
    [[False, True, True, True], [False, False, False, True]]
    """
    roles = [message["role"] for message in chat.messages]
    chosen = [n for n, role in enumerate(roles) if role == ASSISTANT and n >= chat.prompt_messages]
    if train_on == "all":
        chosen = [n for n, role in enumerate(roles) if role not in SYSTEM]
    elif train_on == "last_turn":
        chosen = chosen[-1:]
    weights = (message.get("weight") for message in chat.messages)
    return [n in chosen if weight is None else weight == 1 for n, weight in enumerate(weights)]


def counted_spans(
    chat: Chat,
    text: str,
    turns: Mapping[int, Span],
    train_on: TrainOn,
    tokenizer: PreTrainedTokenizerBase,
) -> list[Span]:
    """Return the characters of a rendered chat that the loss counts, in order.

    A turn of the assistant counts as a whole. Any other message counts as its text and the special
    token that ends it, if the same token ends turns of the assistant.

    Args:
        chat: The chat.
        text: The rendered chat.
        turns: Characters of each assistant's turn, by the index of its message.
        train_on: Which messages count that have no weight.
        tokenizer: Tokenizer with the template.

    Raises:
        ValueError: If the text of a message cannot be located.
    """
    spans: list[Span] = []
    for number, counts in enumerate(counted_messages(chat, train_on)):
        message, turn = chat.messages[number], turns.get(number)
        details = message.get(DETAIL) if message.get("weight") != 0 else None
        if counts and turn and not details:
            spans.append(turn)
        elif counts or details:
            body = locate_body(chat, number, text, tokenizer)
            whole = turn or (body[0], _end(body[1], text, turns, tokenizer))
            parts = [body]
            if details:
                parts = _located(details, message["content"], text, body, counts)
            around = [(whole[0], body[0]), (body[1], whole[1])] if counts else []
            spans += [(start, end) for start, end in (*around, *parts) if start < end]
    return sorted(spans)


def _end(end: int, text: str, turns: Mapping[int, Span], tokenizer: PreTrainedTokenizerBase) -> int:
    """Return the end of a message, given that of its text."""
    answers = [text[slice(*turn)].rstrip() for turn in turns.values()]
    special = special_tokens(tokenizer)
    ends = [token for token in special if any(answer.endswith(token) for answer in answers)]
    ended = re.compile(rf"\s*{any_of((tokenizer.eos_token, *ends)).pattern}").match(text, end)
    return ended.end() if ended else end


def _located(
    details: list[dict[str, Any]], content: str, text: str, body: Span, counts: bool
) -> list[Span]:
    """Return the characters of the parts of a message that count."""
    places = [place for place in range(*body) if text[place] != MARK]
    written = "".join(text[place] for place in places)
    content = content.replace(MARK, "")
    # A template may trim it.
    first = content.find(written)
    if written.strip() != content.strip():
        raise ValueError(
            f"expected a chat template that writes a text with {DETAIL!r}, or with flags of its "
            f"parts, as it is, got {written!r:.80}. Remove these, or use another template."
        )
    spans = []
    for detail in details:
        inside = places[max(detail["begin_offset"] - first, 0) :][
            : detail["end_offset"] + 1 - max(detail["begin_offset"], first)
        ]
        if (counts if detail["train"] is None else detail["train"]) and inside:
            spans.append((inside[0], inside[-1] + 1))
    return spans
