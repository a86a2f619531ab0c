"""Tokenize chats, and mark the tokens that the loss counts."""

from contextlib import suppress
from itertools import compress

import numpy as np
from transformers import PreTrainedTokenizerBase

from lit_entrodrop.data.adjustments import BLANK_ANSWER, NO_ANSWER, REASONING_LEFT_OUT
from lit_entrodrop.data.chats.completeness import (
    check_messages,
    check_roles,
    check_tools,
    reasoning_left_out,
)
from lit_entrodrop.data.chats.counting import counted_messages, counted_spans
from lit_entrodrop.data.chats.record import REASONING_KEYS, Chat, Message
from lit_entrodrop.data.chats.rendering import render_marked, template_of
from lit_entrodrop.data.chats.roles import ASSISTANT, with_known_roles
from lit_entrodrop.data.chats.turns import locate_turns
from lit_entrodrop.data.label_settings import TrainOn
from lit_entrodrop.data.tokens.encoded import Encoded, Span
from lit_entrodrop.data.tokens.special_tokens import (
    encode_marked,
    mark_special_tokens,
    special_tokens,
)


def encode_chat(
    chat: Chat, tokenizer: PreTrainedTokenizerBase, train_on: TrainOn = "completions"
) -> Encoded:
    """Render a chat with the tokenizer's template, and mark the tokens that the loss counts.

    A chat ends with EOS. If the template does not write it, the loss counts it only if it counts
    the last answer and no special token ends that, so that the model learns to stop. A chat without
    an assistant's turn, or with a blank one that counts, is skipped.

    Args:
        chat: The chat.
        tokenizer: Tokenizer with the template.
        train_on: Which messages count that have no weight.

    Raises:
        ValueError: If the tokenizer has no chat template, or the template refuses or changes the
            chat.
    """
    known = with_known_roles(chat.messages, template_of(chat, tokenizer))
    chat = chat._replace(messages=known)
    check_roles(chat, tokenizer)
    if not any(message["role"] == ASSISTANT for message in chat.messages):
        return Encoded([], [], {NO_ANSWER: 1})
    counts = counted_messages(chat, train_on)
    if any(map(_is_blank, compress(chat.messages, counts))):
        return Encoded([], [], {BLANK_ANSWER: 1})
    if tokenizer.split_special_tokens:
        chat = chat._replace(
            messages=mark_special_tokens(chat.messages, tokenizer),
            tools=mark_special_tokens(chat.tools, tokenizer),
        )
    chat, text, marked = _render(chat, tokenizer)
    check_tools(chat, text, tokenizer)
    turns = locate_turns(chat, text, marked, tokenizer)
    check_messages(chat, text, turns, tokenizer)
    spans = counted_spans(chat, text, turns, train_on, tokenizer)
    ids, offsets = encode_marked(text, tokenizer)
    counted = _overlapping(offsets, spans)
    if not ids or ids[-1] != tokenizer.eos_token_id:
        ids.append(tokenizer.eos_token_id)
        last = len(chat.messages) - 1
        ends_itself = text[: max(turns.values())[1]].rstrip().endswith(special_tokens(tokenizer))
        counted.append(last in turns and counts[last] and not ends_itself)
    left_out = len(reasoning_left_out(chat, text, turns))
    return Encoded(ids, counted, {REASONING_LEFT_OUT: left_out} if left_out else {})


def _render(chat: Chat, tokenizer: PreTrainedTokenizerBase) -> tuple[Chat, str, list[Span] | None]:
    try:
        return chat, *render_marked(chat, tokenizer)
    except ValueError:
        # Some templates append the arguments of tool calls as they are.
        written = chat.with_written_arguments()
        if written != chat:
            with suppress(ValueError):
                return written, *render_marked(written, tokenizer)
        raise


def _is_blank(message: Message) -> bool:
    parts = (message.get(key) for key in ("content", "tool_calls", *REASONING_KEYS))
    return message["role"] == ASSISTANT and not any(
        part.strip() if isinstance(part, str) else part for part in parts
    )


def _overlapping(offsets: list[Span], spans: list[Span]) -> list[bool]:
    """Return which tokens overlap with a span; spans are in order and apart."""
    first, last = np.array(offsets, np.int64).reshape(-1, 2).T
    starts = np.array([start for start, _ in spans] + [np.iinfo(np.int64).max])
    following = np.searchsorted(np.array([end for _, end in spans]), first, side="right")
    overlapping: list[bool] = (starts[following] < last).tolist()
    return overlapping
