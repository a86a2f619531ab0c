"""Documents by the words that they share, to find those that are nearly equal."""

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from datasketch import MinHash, MinHashLSH

from lit_entrodrop.commands.doctor.texts import text_of
from lit_entrodrop.data.documents import Document
from lit_entrodrop.runtime.progress import track

SHINGLE = 5  # words
THRESHOLD = 0.8  # of the Jaccard similarity
PERMUTATIONS = 128
# What is compared at most: it takes about a millisecond for each document.
COMPARED = 10_000  # documents of a split
WORDS = 2_000  # of a document
# Scripts without spaces between words count by their characters.
_UNSPACED = r"\u0e00-\u0e7f\u3040-\u30ff\u3400-\u9fff"
_WORD = re.compile(rf"[{_UNSPACED}]|[^\W{_UNSPACED}]+")


@dataclass(frozen=True)
class Pair:
    """Two documents that are nearly equal.

    Args:
        left: index among those that were looked up.
        right: index among those that were indexed.
        similarity: Jaccard, of their shingles.
    """

    left: int
    right: int
    similarity: float


class Index:
    """Documents by MinHash, to find those that are nearly equal to others.

    Candidates come from locality-sensitive hashing; what is told is the exact similarity.

    Args:
        documents: to be found.
        title: of the progress bar.
    """

    def __init__(self, documents: Sequence[Document], title: str) -> None:
        self.documents = documents
        self._lsh = MinHashLSH(threshold=THRESHOLD, num_perm=PERMUTATIONS)
        self._entries = list(_entries(documents, title))
        for number, entry in enumerate(self._entries):
            if entry.shingles:
                self._lsh.insert(number, entry.hashed)

    def pairs(self, documents: Sequence[Document], title: str) -> list[Pair]:
        """Return which documents are nearly equal to which of the index.

        Args:
            documents: to look up.
            title: of the progress bar.
        """
        return list(self._near(_entries(documents, title)))

    def own_pairs(self) -> list[Pair]:
        """Return which documents of the index are nearly equal to which, themselves included."""
        return list(self._near(self._entries))

    def _near(self, entries: Iterable["_Entry"]) -> Iterator[Pair]:
        for left, entry in enumerate(entries):
            for right in self._lsh.query(entry.hashed) if entry.shingles else []:
                similarity = jaccard(entry.shingles, self._entries[right].shingles)
                if similarity >= THRESHOLD:
                    yield Pair(left, right, similarity)


def shingles(text: str) -> frozenset[str]:
    """Return the runs of five words of a text, in lower case and without punctuation.

    Args:
        text: of which the first 2,000 words count; one of fewer than five is a single run.

    >>> sorted(shingles("A mild cough, and a fever."))
    ['a mild cough and a', 'mild cough and a fever']
    """
    words = _WORD.findall(text.lower())[:WORDS]
    starts = range(max(len(words) - SHINGLE + 1, 1))
    return frozenset(" ".join(words[start : start + SHINGLE]) for start in starts) - {""}


def jaccard(left: frozenset[str], right: frozenset[str]) -> float:
    """Return the share of common elements among all of two sets.

    >>> jaccard(frozenset("ab"), frozenset("bc"))
    0.3333333333333333
    """
    return len(left & right) / max(len(left | right), 1)


@dataclass(frozen=True)
class _Entry:
    shingles: frozenset[str]
    hashed: MinHash


def _entries(documents: Sequence[Document], title: str) -> Iterator[_Entry]:
    for document in track(documents, title, unit="documents"):
        own = shingles(text_of(document))
        hashed = MinHash(num_perm=PERMUTATIONS)
        hashed.update_batch([shingle.encode() for shingle in own])
        yield _Entry(own, hashed)
