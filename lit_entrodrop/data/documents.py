"""Documents: the unit that is split, hashed, tokenized and isolated when packed."""

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Literal

Kind = Literal["text", "completion", "messages", "instruction"]


@dataclass(frozen=True, order=True, slots=True)
class Document:
    """One document; equal documents hash and compare equal, whatever their source.

    Attributes:
        kind: What the loss counts: every token of a "text", the completion of a "completion", or
            the assistant's turns of "messages". An "instruction" becomes messages if the tokenizer
            has a chat template, else a completion.
        content: The text; for the other kinds, JSON of `[prompt, completion, ...]`, of the
            messages, or of the fields of an `Instruction`.
        where: File and line or row, for error messages.
        format: Format of its record, as in `data.format`.
        source: Number of its source in the corpus, from 0.
    """

    kind: Kind
    content: str
    where: str = field(default="", compare=False, repr=False)
    format: str = field(default="text", compare=False, repr=False)
    source: int = field(default=0, compare=False, repr=False)


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
