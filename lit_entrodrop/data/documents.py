"""Documents: the unit that is split, hashed, tokenized and isolated when packed."""

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

Kind = Literal["text", "completion", "messages"]


@dataclass(frozen=True, order=True, slots=True)
class Document:
    """One document; equal documents hash and compare equal, whatever their source.

    Attributes:
        kind: What the loss counts: every token of a "text", the completion of a "completion", or
            the assistant's turns of "messages".
        content: The text; for the other kinds, JSON of `[prompt, completion]` or of the messages.
        where: File and line or row, for error messages.
    """

    kind: Kind
    content: str
    where: str = field(default="", compare=False, repr=False)


def document_from_row(row: Mapping[str, Any], text_column: str, where: str) -> Document:
    """Turn a record into a document; errors begin with `where`.

    `text_column` takes precedence, then `prompt` and `completion`, then `messages`.

    >>> document_from_row({"text": "Fever."}, "text", "notes.jsonl line 1")
    Document(kind='text', content='Fever.')
    """
    if text_column in row:
        return _document("text", _string(row, text_column, where), where)
    if "prompt" in row and "completion" in row:
        pair = [_string(row, "prompt", where), _string(row, "completion", where)]
        return _document("completion", json.dumps(pair, ensure_ascii=False), where)
    if "messages" in row:
        messages = _messages(row["messages"], where)
        return _document("messages", json.dumps(messages, ensure_ascii=False), where)
    raise ValueError(
        f"{where}: expected a column {text_column!r}, or 'prompt' and 'completion', or 'messages', "
        f"got {sorted(row)}. Set text_column to the column with the text."
    )


def digest_documents(documents: Iterable[Document]) -> str:
    """Hash documents, their kinds and their order, 32 hexadecimal digits.

    >>> digest_documents([Document("text", "Fever.")])[:8]
    '9c4042ab'
    """
    digest = hashlib.blake2b(digest_size=16)
    for document in documents:
        encoded = document.content.encode()
        digest.update(f"{document.kind} {len(encoded)}\n".encode())
        digest.update(encoded)
    return digest.hexdigest()


def _document(kind: Kind, content: str, where: str) -> Document:
    try:
        content.encode()
    except UnicodeEncodeError as error:
        raise ValueError(
            f"{where}: expected valid Unicode, got the lone surrogate "
            f"{content[error.start]!a}. Write the full character or remove the row."
        ) from error
    return Document(kind, content, where)


def _string(row: Mapping[str, Any], column: str, where: str) -> str:
    value = row[column]
    if isinstance(value, str):
        return value
    raise ValueError(
        f"{where}: expected text in column {column!r}, got {type(value).__name__}. "
        "Convert it to a string or remove the row."
    )


def _messages(value: object, where: str) -> list[dict[str, Any]]:
    if not (
        isinstance(value, list)
        and value
        and all(isinstance(turn, dict) and isinstance(turn.get("role"), str) for turn in value)
    ):
        raise ValueError(
            f"{where}: expected 'messages' to be a non-empty list of records with a 'role', got "
            f'{type(value).__name__}. Write it as [{{"role": "user", "content": "..."}}, ...].'
        )
    # Parquet gives every message the union of all keys; templates test for presence.
    return [{key: item for key, item in turn.items() if item is not None} for turn in value]
