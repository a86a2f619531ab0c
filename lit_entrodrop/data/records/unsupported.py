"""Refuse records that training cannot use, and say how to name the columns of others."""

from collections.abc import Collection, Mapping
from typing import Any

from lit_entrodrop.data.chats.record import is_chat
from lit_entrodrop.data.records.base import Row

QUESTIONS = ("prompt", "instruction", "question", "query", "problem", "input")
ANSWERS = ("completion", "output", "response", "answer", "solution", "generation", "target")
# Columns of records that have no text to imitate, with what to do.
_OTHER_TRAINING = {
    ("chosen", "rejected"): (
        "Preference pairs are not learned. Write a 'prompt' and a 'completion', or 'messages', "
        "with the chosen answers alone."
    ),
    ("preferred_output", "non_preferred_output"): (
        "Preference pairs are not learned. Write 'messages' with the preferred outputs alone."
    ),
    ("completions", "labels"): (
        "Stepwise supervision is not learned. Write the correct steps as one 'completion'."
    ),
    ("kto_tag",): (
        "Answers with a judgment are not learned. Keep the records with good answers, and remove "
        "the column 'kto_tag'."
    ),
}
_MEDIA = ("image", "images", "video", "videos", "audio", "audios")
# Columns that change what an answer means.
_CONTEXT = {
    "system": "Write it at the start of the text, or remove the column.",
    "tools": "Write the record as 'messages', or remove the column.",
    "functions": "Write the record as 'messages', or remove the column.",
    "documents": "Write their text in a message, or remove the column.",
}


def refuse_other_training(columns: Collection[str]) -> None:
    """Refuse columns that are made for another way of training.

    Raises:
        ValueError: If they are those of preferences, of judged steps or of judged answers.

    >>> refuse_other_training(["prompt", "completion", "label"])
    """
    for others, remedy in _OTHER_TRAINING.items():
        if set(others) <= set(columns):
            raise ValueError(f"got the columns {' and '.join(map(repr, others))}. {remedy}")


def refuse_judged(row: Row) -> None:
    """Refuse an answer whose label says whether it is good.

    Raises:
        ValueError: If the label is true or false.

    >>> refuse_judged({"prompt": "The sky is", "completion": " green.", "label": 3})
    """
    if str(row.get("label")).lower() in ("true", "false"):
        raise ValueError(
            f"got a 'completion' with the 'label' {row['label']!r}. Answers with a judgment are "
            "not learned. Keep the records with good answers, and remove the column 'label'."
        )


def refuse_unread(row: Row, read: tuple[str, ...]) -> None:
    """Refuse a record with a column that changes what its answer means, but is not read.

    Args:
        row: The record.
        read: Columns that the format of the record has.

    Raises:
        ValueError: If there is such a column.
    """
    for column, remedy in _CONTEXT.items():
        if column not in read and row.get(column):
            raise ValueError(
                f"the column {column!r} belongs to the record, but is not read. {remedy}"
            )
    for column in _MEDIA:
        if row.get(column):
            raise ValueError(
                f"the column {column!r} belongs to the record, but only text is learned. Remove "
                "the record, or the column if the text does not refer to it."
            )


def advice_for(row: Mapping[str, Any]) -> str:
    """Return how to make a record readable that fits no format.

    >>> advice_for({"article": "Fever.", "id": 3})
    'Set data.columns to {text: article} if that is the whole text.'
    """
    if "input_ids" in row:
        return "Tokens are not read. Write the text."
    if chats := [name for name, value in row.items() if is_chat(value) and name != "prompt"]:
        return f"Set data.columns to {{messages: {chats[0]}}}."
    question = next((name for name in QUESTIONS if name in row), None)
    answer = next((name for name in ANSWERS if name in row), None)
    if question and answer:
        pair = _columns({"prompt": question, "completion": answer})
        context = next((name for name in ("context", "input") if name in row), "input")
        chat = _columns({"instruction": question, "input": context, "output": answer})
        return f"Set data.columns to {chat} for a chat, or to {pair} for plain text."
    if "prompt" in row:
        return "A prompt alone is not learned. Add the column 'completion'."
    texts = [name for name, value in row.items() if isinstance(value, str)]
    column = texts[0] if len(texts) == 1 else "COLUMN"
    return f"Set data.columns to {{text: {column}}} if that is the whole text."


def _columns(names: Mapping[str, str]) -> str:
    renamed = (f"{standard}: {name}" for standard, name in names.items() if name != standard)
    return f"{{{', '.join(renamed)}}}"
