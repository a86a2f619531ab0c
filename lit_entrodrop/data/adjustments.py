"""Reasons for which text is skipped, cut or changed; splits count each of them.

A reason completes a sentence that starts with its count: "3 documents skipped: blank".
"""

from collections import Counter
from collections.abc import Iterable, Mapping

BLANK = "documents skipped: blank"
BLANK_COMPLETION = "documents skipped: blank completion"
NO_ANSWER = "chats skipped: no assistant turn"
BLANK_ANSWER = "chats skipped: blank assistant turn"
REASONING_LEFT_OUT = "earlier turns without their reasoning: the chat template leaves it out"
ALPACA_PROMPT = "instructions in the published prompt of Alpaca: there is no chat template"
SPECIAL_IN_TEXT = (
    "special tokens in the text of documents: kept (data.split_special_tokens makes them text)"
)
SPLIT_SPECIAL = "special tokens in the text of documents: tokenized as ordinary text"
UNLABELED = "documents skipped: no token to predict"
CUT = "documents longer than a block: cut into chunks"
NEAREST_CONTEXT = (
    "prompts or chats longer than a block: labels keep only the nearest context in their block"
)
CONTINUED = (
    "prompts or chats longer than a block: answers continue in further chunks, without the start "
    "of their prompt"
)
TOO_FAR = "tokens of long prompts or chats left out: too far from any label"
DROPPED = "prompts or chats longer than a block: dropped (data.long_pairs)"
EVALUATION_TEXT = "documents left out: they are in evaluation text"
BEYOND_LIMIT = "documents left out: beyond the token limit"


def sum_adjustments(parts: Iterable[Mapping[str, int]]) -> Counter[str]:
    """Add counts by reason."""
    total: Counter[str] = Counter()
    for part in parts:
        total.update(part)
    return total


def describe_adjustments(adjustments: Mapping[str, int]) -> str:
    """Describe counted reasons in one line, in alphabetical order; empty without any.

    >>> describe_adjustments({BLANK: 1200, BEYOND_LIMIT: 3})
    '3 documents left out: beyond the token limit; 1,200 documents skipped: blank'
    """
    counted = sorted((reason, count) for reason, count in adjustments.items() if count)
    return "; ".join(f"{count:,} {reason}" for reason, count in counted)
