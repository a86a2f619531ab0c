"""Plain text of documents, samples of documents, and excerpts for messages."""

import json
from collections.abc import Sequence

from lit_entrodrop.data.chats.record import Chat
from lit_entrodrop.data.documents import Document
from lit_entrodrop.data.records.alpaca import Instruction

SHOWN = 40  # characters of an excerpt


def text_of(document: Document) -> str:
    """Return the plain text of a document, without the JSON of chats and completions.

    >>> text_of(Document("completion", '["Two and two?", "Four."]'))
    'Two and two? Four.'
    """
    if document.kind == "text":
        return document.content
    if document.kind == "completion":
        return " ".join(json.loads(document.content))
    if document.kind == "instruction":
        turns = Instruction.from_json(document.content).to_chat().messages
    else:
        turns = Chat.from_json(document.content).messages
    parts = (part for turn in turns for part in (turn["content"], turn.get("tool_calls")) if part)
    return " ".join(part if isinstance(part, str) else json.dumps(part) for part in parts)


def sample(documents: Sequence[Document], count: int) -> list[Document]:
    """Return up to ``count`` evenly spaced documents.

    >>> [document.content for document in sample([Document("text", c) for c in "abcd"], 2)]
    ['a', 'c']
    """
    step = max(len(documents) / count, 1)
    return [documents[int(index * step)] for index in range(min(count, len(documents)))]


def first_difference(before: str, after: str) -> str:
    """Return excerpts of two texts around the first character that differs.

    >>> first_difference("a  b", "a b")
    "'a  b' -> 'a b'"
    """
    pairs = enumerate(zip(before, after, strict=False))
    place = next((i for i, (x, y) in pairs if x != y), min(len(before), len(after)))
    part = slice(max(0, place - SHOWN // 2), place + SHOWN // 2)
    return f"{before[part]!r} -> {after[part]!r}"


def excerpt(text: str) -> str:
    """Return the beginning of a text on one line.

    >>> excerpt("Fever,  cough and pain in the chest for two weeks")
    "'Fever, cough and pain in the chest for t…'"
    """
    line = " ".join(text.split())
    return repr(line if len(line) <= SHOWN else f"{line[:SHOWN]}…")
