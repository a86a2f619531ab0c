"""Special tokens that documents spell out, such as `<|im_end|>` in a text about chats."""

import re
from typing import Any, TypeVar

from transformers import PreTrainedTokenizerBase

from lit_entrodrop.data.tokens.encoded import Span
from regularizers import Vocabulary

Value = TypeVar("Value")

# A private-use character, which no document contains.
MARK = "\ue001"


def special_tokens(tokenizer: PreTrainedTokenizerBase) -> tuple[str, ...]:
    """Return the special tokens of a tokenizer as they appear in text, the longest first."""
    tokens = tokenizer.convert_ids_to_tokens(list(Vocabulary.of_tokenizer(tokenizer).special_ids))
    return tuple(sorted(tokens, key=len, reverse=True))


def any_of(tokens: tuple[str, ...]) -> re.Pattern[str]:
    """Return a pattern that matches any of the given tokens, as its only group.

    >>> any_of(("<s>", "|")).findall("a|b<s>")
    ['|', '<s>']
    """
    return re.compile(f"({'|'.join(map(re.escape, tokens))})")


def mark_special_tokens(value: Value, tokenizer: PreTrainedTokenizerBase) -> Value:
    """Mark the special tokens in all strings of a chat, before its template adds its own."""
    pattern = any_of(special_tokens(tokenizer))

    def mark(value: Any) -> Any:
        if isinstance(value, str):
            return pattern.sub(lambda match: _marked(match[0]), value)
        if isinstance(value, dict):
            return {key: mark(entry) for key, entry in value.items()}
        return [mark(entry) for entry in value] if isinstance(value, list) else value

    marked: Value = mark(value)
    return marked


def encode_marked(text: str, tokenizer: PreTrainedTokenizerBase) -> tuple[list[int], list[Span]]:
    """Tokenize a text in which marked special tokens are ordinary text and others are special.

    Returns:
        Token ids without BOS and EOS, and the characters of each token.
    """
    ids: list[int] = []
    spans: list[Span] = []
    parts, place = [text], 0
    if MARK in text:
        parts = any_of(tuple(map(_marked, special_tokens(tokenizer)))).split(text)
    for number, part in enumerate(parts):
        is_marked = bool(number % 2)
        encoded = tokenizer(
            part.replace(MARK, "") if is_marked else part,
            add_special_tokens=False,
            split_special_tokens=is_marked,
            return_offsets_mapping=True,
            verbose=False,
        )
        ids += encoded["input_ids"]
        for start, end in encoded["offset_mapping"]:
            spans.append((place, place + len(part)) if is_marked else (place + start, place + end))
        place += len(part)
    return ids, spans


def _marked(token: str) -> str:
    return token[:1] + MARK + token[1:]
