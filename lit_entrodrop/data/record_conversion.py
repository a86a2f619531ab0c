"""Recognize records in unsupported formats, and say how to convert them."""

from collections.abc import Mapping
from typing import Any

QUESTIONS = ("prompt", "instruction", "question", "query", "problem", "input")
ANSWERS = ("completion", "output", "response", "answer", "solution", "target")


def conversion_of(row: Mapping[str, Any]) -> str:
    """Return how to convert a record that has none of the supported columns.

    >>> conversion_of({"question": "Two and two?", "answer": "Four."})
    "Rename 'question' to 'prompt' and 'answer' to 'completion'."
    """
    if row.keys() >= {"chosen", "rejected"}:
        return (
            "Preference pairs are not learned. Write a 'prompt' and a 'completion', or 'messages', "
            "with the chosen answers alone."
        )
    if chats := [name for name, value in row.items() if is_chat(value)]:
        return (
            f"The column {chats[0]!r} is a chat. Convert it to 'messages', a list such as "
            '[{"role": "user", "content": "..."}, {"role": "assistant", "content": "..."}]; '
            "in the format of ShareGPT, 'human' is 'user' and 'gpt' is 'assistant'."
        )
    question = next((name for name in QUESTIONS if name in row), None)
    answer = next((name for name in ANSWERS if name in row), None)
    if question == "instruction" and answer:
        return (
            "Convert the format of Alpaca to 'prompt' (the instruction, then the input, if any) "
            f"and 'completion' (the {answer})."
        )
    if question and answer:
        pairs = ((question, "prompt"), (answer, "completion"))
        renamed = [f"{name!r} to {new!r}" for name, new in pairs if name != new]
        return f"Rename {' and '.join(renamed)}."
    return "Set text_column to the column with the whole text, if there is one."


def is_chat(value: object) -> bool:
    """Return whether a value is a list of messages, in any format.

    >>> is_chat([{"from": "human", "value": "Why?"}])
    True
    """
    return (
        isinstance(value, list)
        and bool(value)
        and all(isinstance(turn, dict) and turn.keys() & {"role", "from"} for turn in value)
    )
