"""Items of a task, read from a file."""

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from lit_entrodrop.data.chats.record import Message, read_chat
from lit_entrodrop.data.file_formats import CorpusFile, Record, supported_formats
from lit_entrodrop.evaluation.task.settings import TaskSettings

Prompt = str | list[Message]


@dataclass(frozen=True)
class TaskItem:
    """A prompt and what counts as a right output.

    Attributes:
        where: File and row.
        prompt: The prompt: a text, or the messages of a chat.
        answers: Right answers, at least one.
        choices: Choices that are compared; empty unless the metric is `choice`.
    """

    where: str
    prompt: Prompt
    answers: tuple[str, ...]
    choices: tuple[str, ...] = ()

    @property
    def text(self) -> str:
        """The prompt; of a chat its last message."""
        return self.prompt if isinstance(self.prompt, str) else str(self.prompt[-1]["content"])


def read_items(settings: TaskSettings) -> list[TaskItem]:
    """Read the items of a task: all of them, or `max_items` at equal distances.

    Raises:
        ValueError: If the file cannot be read, or a row lacks a prompt or an answer.
    """
    file = CorpusFile(Path(settings.file).expanduser())
    formats = supported_formats()
    if not file.path.is_file() or file.suffix not in formats:
        raise ValueError(
            f"monitors.task.file: expected a file with one of the suffixes {', '.join(formats)}, "
            f"got {settings.file}: correct the path"
        )
    records = formats[file.suffix].read_records(file)
    items = [_item(record, settings) for record in records]
    if not items:
        raise ValueError(
            f"monitors.task.file: expected rows in {settings.file}, found none: fill it"
        )
    count = min(settings.max_items, len(items))
    return [items[number] for number in np.arange(count) * len(items) // count]


def _item(record: Record, settings: TaskSettings) -> TaskItem:
    row = record.content
    try:
        if isinstance(row, str):
            raise ValueError("expected columns, got plain text: use .jsonl or .csv")
        prompt = _prompt(_value(row, settings.prompt, "prompt"), settings)
        right = _value(row, settings.answer, "answer")
        if settings.metric == "choice":
            choices = _texts(_value(row, settings.choices, "choices"), settings.choices)
            return TaskItem(record.where, prompt, _right_choices(right, choices), choices)
        answers = _texts(right, settings.answer)
        for pattern in answers if settings.metric == "regex" else ():
            _check_pattern(pattern)
        return TaskItem(record.where, prompt, answers)
    except ValueError as error:
        raise ValueError(f"monitors.task: {record.where}: {error}") from error


def _value(row: Mapping[str, Any], column: str, setting: str) -> Any:
    if row.get(column) in (None, "", []):
        state = "null or empty" if column in row else f"the columns {sorted(row)}"
        raise ValueError(
            f"expected a column {column!r} with a value, got {state}: fill it, or set "
            f"monitors.task.{setting} to the column of the {setting}"
        )
    return row[column]


def _prompt(value: Any, settings: TaskSettings) -> Prompt:
    if isinstance(value, list):
        return read_chat({"messages": value}).messages
    [text] = _texts(value, settings.prompt)
    return [{"role": "user", "content": text}] if settings.chat else text


def _texts(value: Any, column: str) -> tuple[str, ...]:
    """Return one text or several; numbers and truth values are written as JSON writes them."""
    texts = [_text(each) for each in (value if isinstance(value, list) else [value])]
    if not all(text.strip() and _is_unicode(text) for text in texts):
        raise ValueError(
            f"expected a text or a list of texts in column {column!r}, got {value!r}: correct the "
            "row, or remove it"
        )
    return tuple(texts)


def _text(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float) and not math.isfinite(value):
        return ""  # a missing value of a table
    return str(value) if isinstance(value, str | int | float) else ""


def _is_unicode(text: str) -> bool:
    """Return whether a text has no lone surrogate, which JSON can write."""
    return text.encode(errors="replace").decode() == text


def _right_choices(right: Any, choices: tuple[str, ...]) -> tuple[str, ...]:
    """Return the choices that an answer names, by their text or by their number from 0."""
    named = right if isinstance(right, list) else [right]
    # CSV has numbers as text.
    numbers = {str(number): choice for number, choice in enumerate(choices)}
    found = [each if each in choices else numbers.get(str(each)) for each in named]
    if len(choices) < 2 or None in found:
        raise ValueError(
            f"expected at least two choices, and one of them or its number from 0 as the answer, "
            f"got choices {list(choices)} and answer {right!r}: correct the row"
        )
    return tuple(map(str, found))


def _check_pattern(pattern: str) -> None:
    try:
        re.compile(pattern)
    except (re.error, OverflowError, RecursionError) as error:
        raise ValueError(
            f"expected a regular expression of Python as the answer, got {pattern!r} ({error}): "
            "correct it, or set monitors.task.metric to contains"
        ) from error
