"""Index of documents by shared word n-grams, to find near duplicates."""

import re
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

from datasketch import MinHash, MinHashLSH

from lit_entrodrop.commands.doctor.document_text import text_of
from lit_entrodrop.data.documents import Document
from lit_entrodrop.runtime.progress import track

SHINGLE = 5  # words
THRESHOLD = 0.8  # Jaccard similarity
PERMUTATIONS = 128
# Limits of a comparison, which takes about a millisecond per document.
COMPARED = 10_000  # documents of a split
WORDS = 2_000  # words of a document
# Scripts without spaces between words count by characters.
_UNSPACED = r"\u0e00-\u0e7f\u3040-\u30ff\u3400-\u9fff"
_WORD = re.compile(rf"[{_UNSPACED}]|[^\W{_UNSPACED}]+")


class NearDuplicate(NamedTuple):
    """Index of a queried and an indexed document, and the Jaccard similarity of their shingles."""

    queried: int
    indexed: int
    similarity: float


class NearDuplicateIndex:
    """Index that returns near duplicates of a document.

    Locality-sensitive hashing proposes candidates; their similarity is then computed exactly.
    Progress bars have the given titles.
    """

    def __init__(self, documents: Sequence[Document], title: str) -> None:
        self.documents = documents
        self._lsh = MinHashLSH(threshold=THRESHOLD, num_perm=PERMUTATIONS)
        self._entries = list(_entries(documents, title))
        for number, entry in enumerate(self._entries):
            if entry.shingles:
                self._lsh.insert(number, entry.hashed)

    def query(self, documents: Sequence[Document], title: str) -> list[NearDuplicate]:
        """Return the indexed near duplicates of other documents."""
        return list(self._near(_entries(documents, title)))

    def query_itself(self) -> list[NearDuplicate]:
        """Return the near duplicates within the index; each document matches itself too."""
        return list(self._near(self._entries))

    def _near(self, entries: Iterable["_Entry"]) -> Iterator[NearDuplicate]:
        for queried, entry in enumerate(entries):
            for indexed in self._lsh.query(entry.hashed) if entry.shingles else []:
                similarity = jaccard(entry.shingles, self._entries[indexed].shingles)
                if similarity >= THRESHOLD:
                    yield NearDuplicate(queried, indexed, similarity)


def shingles(text: str) -> frozenset[str]:
    """Return the runs of five words among the first 2,000, lower-cased, without punctuation.

    A text of fewer than five words is a single run.

    >>> sorted(shingles("A mild cough, and a fever."))
    ['a mild cough and a', 'mild cough and a fever']
    """
    words = _WORD.findall(text.lower())[:WORDS]
    starts = range(max(len(words) - SHINGLE + 1, 1))
    return frozenset(" ".join(words[start : start + SHINGLE]) for start in starts) - {""}


def jaccard(left: frozenset[str], right: frozenset[str]) -> float:
    """Return the size of the intersection of two sets divided by that of their union.

    >>> jaccard(frozenset("ab"), frozenset("bc"))
    0.3333333333333333
    """
    return len(left & right) / max(len(left | right), 1)


class _Entry(NamedTuple):
    shingles: frozenset[str]
    hashed: MinHash


def _entries(documents: Sequence[Document], title: str) -> Iterator[_Entry]:
    for document in track(documents, title, unit="documents"):
        own = shingles(text_of(document))
        hashed = MinHash(num_perm=PERMUTATIONS)
        hashed.update_batch([shingle.encode() for shingle in own])
        yield _Entry(own, hashed)
