"""Documents: the unit that is split, hashed, tokenized and isolated when packed."""

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from lit_entrodrop.data.chats.record import read_chat
from lit_entrodrop.data.reading import Reading
from lit_entrodrop.data.record_conversion import conversion_of, is_chat

Kind = Literal["text", "completion", "messages"]

# Besides the text column.
_COLUMNS = ("prompt", "completion", "messages")


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


def document_from_row(row: Mapping[str, Any], reading: Reading, where: str) -> Document:
    """Turn a record into a document; errors begin with `where`.

    The text column takes precedence, then `prompt` and `completion`, then `messages`, which may
    have `tools`. Other columns are ignored. A column that is null counts as absent.

    >>> document_from_row({"text": "Fever."}, Reading(), "notes.jsonl line 1")
    Document(kind='text', content='Fever.')
    """
    try:
        kind, content = _read(row, reading.text_column)
        content.encode()
    except UnicodeEncodeError as error:
        raise ValueError(
            f"{where}: expected valid Unicode, got the lone surrogate "
            f"{content[error.start]!a}. Write the full character or remove the row."
        ) from error
    except ValueError as error:
        raise ValueError(f"{where}: {error}") from error
    return Document(kind, content, where)


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


def _read(row: Mapping[str, Any], text_column: str) -> tuple[Kind, str]:
    present = {name: value for name, value in row.items() if value is not None}
    if text_column in present:
        return "text", _string(present, text_column)
    if "prompt" in present and "completion" in present:
        if unread := [name for name in ("system", "tools") if present.get(name)]:
            raise ValueError(
                f"the column {unread[0]!r} is not read next to 'prompt' and 'completion'. Write it "
                "at the start of 'prompt', or remove the column."
            )
        pair = [_string(present, "prompt"), _string(present, "completion")]
        return "completion", json.dumps(pair, ensure_ascii=False)
    if "messages" in present:
        return "messages", read_chat(present).to_json()
    got = sorted(name if name in present else f"{name} (null)" for name in row)
    null = [repr(name) for name in (text_column, *_COLUMNS) if name in row and name not in present]
    remedy = f"Fill {' or '.join(null)}, or remove the row." if null else conversion_of(present)
    raise ValueError(
        f"expected a column {text_column!r}, or 'prompt' and 'completion', or 'messages', got "
        f"{got}. {remedy}"
    )


def _string(row: Mapping[str, Any], column: str) -> str:
    value = row[column]
    if isinstance(value, str):
        return value
    remedy = conversion_of({column: value}) if is_chat(value) else "Convert it to a string."
    raise ValueError(f"expected text in column {column!r}, got {type(value).__name__}. {remedy}")
