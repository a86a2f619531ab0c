"""Tokenize chats, and mark the tokens of the assistant's turns."""

import os
import re
from collections.abc import Sequence
from typing import Any

from transformers import BatchEncoding, PreTrainedTokenizerBase

Message = dict[str, Any]

_GENERATION_TAG = re.compile(r"\{%-?\s*generation\s*-?%\}")


def encode_chat(
    messages: Sequence[Message], tokenizer: PreTrainedTokenizerBase
) -> tuple[list[int], list[bool]]:
    """Render a chat with the tokenizer's template, and find the tokens of the assistant's turns.

    Templates with `{% generation %}` tags mark these turns. For other templates, a turn is the text
    that the template adds to the messages before it, without the generation prompt.

    Returns:
        Token ids, and for each whether it belongs to an assistant's turn.
    """
    template = check_chat_template(tokenizer)
    if _GENERATION_TAG.search(template):
        encoded = tokenizer.apply_chat_template(
            list(messages), return_dict=True, return_assistant_tokens_mask=True
        )
        assert isinstance(encoded, BatchEncoding)
        return encoded["input_ids"], [bool(mask) for mask in encoded["assistant_masks"]]
    text = _render(messages, tokenizer)
    spans = _assistant_spans(messages, text, tokenizer)
    encoded = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True, verbose=False)
    counted = [_overlaps(offsets, spans) for offsets in encoded["offset_mapping"]]
    return encoded["input_ids"], counted


def check_chat_template(tokenizer: PreTrainedTokenizerBase) -> str:
    """Return the Jinja chat template of a tokenizer that can locate the assistant's tokens."""
    name = tokenizer.name_or_path
    if not tokenizer.chat_template:
        raise ValueError(
            f"tokenizer {name!r} has no chat template: expected one, because the corpus has "
            "'messages'. Use an instruction-tuned model's tokenizer, or a 'prompt'/'completion' or "
            "text corpus."
        )
    if not tokenizer.is_fast:
        raise ValueError(
            f"tokenizer {name!r} is not a fast tokenizer: expected one, because only fast "
            "tokenizers map tokens to characters. Convert it to a tokenizer.json."
        )
    return tokenizer.get_chat_template()


def _render(
    messages: Sequence[Message], tokenizer: PreTrainedTokenizerBase, prompt: bool = False
) -> str:
    rendered = tokenizer.apply_chat_template(
        list(messages), tokenize=False, add_generation_prompt=prompt
    )
    assert isinstance(rendered, str)
    return rendered


def _assistant_spans(
    messages: Sequence[Message], text: str, tokenizer: PreTrainedTokenizerBase
) -> list[tuple[int, int]]:
    spans = []
    for turn in (n for n, message in enumerate(messages) if message["role"] == "assistant"):
        earlier = _render(messages[:turn], tokenizer) if turn else ""
        prompt = _render(messages[:turn], tokenizer, prompt=True) if turn else ""
        through = _render(messages[: turn + 1], tokenizer)
        if not (through.startswith(earlier) and text.startswith(through)):
            raise ValueError(
                f"the chat template of {tokenizer.name_or_path!r} rewrites earlier turns, at "
                f"message {turn + 1}: {messages[turn]!r:.80}. Mark the assistant's part of the "
                "template with {% generation %} and {% endgeneration %}."
            )
        shared = os.path.commonprefix([prompt, through])  # noqa: RUF071 (characters, not folders)
        spans.append((len(shared), len(through)))
    return spans


def _overlaps(offsets: tuple[int, int], spans: Sequence[tuple[int, int]]) -> bool:
    first, last = offsets
    return any(first < end and start < last for start, end in spans)
