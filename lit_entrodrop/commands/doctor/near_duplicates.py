"""Index of documents by shared word n-grams, to find near duplicates."""

import re
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from lit_entrodrop.commands.doctor.document_text import text_of
from lit_entrodrop.data.documents import Document
from lit_entrodrop.data.packing.chunking import gather_chunks
from lit_entrodrop.runtime.progress import track

SHINGLE = 5  # words
THRESHOLD = 0.8  # Jaccard similarity
# Limits of a comparison, which takes about half a millisecond per document.
COMPARED = 10_000  # documents of a split
WORDS = 2_000  # words of a document
MATCHES = 20  # indexed documents per queried one, most shared shingles first
# Scripts without spaces between words count by characters.
_UNSPACED = r"\u0e00-\u0e7f\u3040-\u30ff\u3400-\u9fff"
_WORD = re.compile(rf"[{_UNSPACED}]|[^\W{_UNSPACED}]+")
# Random odd numbers, one for each place in a shingle.
_PLACES = np.random.default_rng(0).integers(2**63, size=SHINGLE, dtype=np.uint64) * 2 + 1

Shingles = NDArray[np.uint64]


class NearDuplicate(NamedTuple):
    """Index of a queried and an indexed document, and the Jaccard similarity of their shingles."""

    queried: int
    indexed: int
    similarity: float


class NearDuplicateIndex:
    """Index that returns near duplicates of a document.

    Two sets with a similarity of 0.8 share one of the rarest 20 % of their shingles. Documents that
    do are compared exactly, at most `MATCHES` for a queried one. Progress bars have the given
    titles.

    Source:
        Chaudhuri et al. 2006, A Primitive Operator for Similarity Joins in Data Cleaning.
    """

    def __init__(self, documents: Sequence[Document], title: str) -> None:
        self.documents = documents
        self._sets = list(_shingle_sets(documents, title))
        self._known, self._counts = np.unique(np.concatenate(self._sets), return_counts=True)
        self._own_rarest = [self._rarest(own) for own in self._sets]
        shared = np.concatenate(self._own_rarest)
        owners = np.repeat(np.arange(len(self._sets)), [len(own) for own in self._own_rarest])
        order = np.argsort(shared, kind="stable")
        self._shared, self._owners = shared[order], owners[order]

    def query(self, documents: Sequence[Document], title: str) -> list[NearDuplicate]:
        """Return the indexed near duplicates of other documents."""
        sets = _shingle_sets(documents, title)
        return list(self._near((own, self._rarest(own)) for own in sets))

    def query_itself(self) -> list[NearDuplicate]:
        """Return the near duplicates within the index; each document matches itself too."""
        return list(self._near(zip(self._sets, self._own_rarest, strict=True)))

    def _near(self, sets: Iterable[tuple[Shingles, Shingles]]) -> Iterator[NearDuplicate]:
        for queried, (own, rarest) in enumerate(sets):
            for indexed in self._candidates(rarest):
                similarity = jaccard(own, self._sets[indexed])
                if similarity >= THRESHOLD:
                    yield NearDuplicate(queried, indexed, similarity)

    def _candidates(self, rarest: Shingles) -> list[int]:
        first, last = (np.searchsorted(self._shared, rarest, side) for side in ("left", "right"))
        shared = np.bincount(self._owners[gather_chunks(first, last - first)])
        owners = np.flatnonzero(shared)
        found: list[int] = owners[np.argsort(-shared[owners], kind="stable")[:MATCHES]].tolist()
        return found

    def _rarest(self, own: Shingles) -> Shingles:
        """Return the shingles that a similar document must share one of, the rarest ones."""
        places = np.searchsorted(self._known, own).clip(max=len(self._known) - 1)
        frequencies = np.where(self._known[places] == own, self._counts[places], 0)
        count = len(own) - int(THRESHOLD * len(own)) + 1
        return own[np.argsort(frequencies, kind="stable")[:count]]


def shingles(text: str) -> Shingles:
    """Return the hashed runs of five words among the first 2,000, sorted.

    Words are lower-cased, without punctuation. A text of fewer than five words is a single run.
    Hashes differ between processes.

    >>> len(shingles("A mild cough, and a fever."))
    2
    """
    words = _WORD.findall(text.lower())[:WORDS]
    hashes = np.fromiter(map(hash, words), np.int64, len(words)).view(np.uint64)
    if not words:
        return hashes
    runs = np.lib.stride_tricks.sliding_window_view(hashes, min(SHINGLE, len(words)))
    return np.unique((runs * _PLACES[: runs.shape[1]]).sum(1))


def jaccard(left: Shingles, right: Shingles) -> float:
    """Return the size of the intersection of two sets divided by that of their union.

    >>> jaccard(np.array([1, 2]), np.array([2, 3]))
    0.3333333333333333
    """
    shared = len(np.intersect1d(left, right, assume_unique=True))
    return shared / max(len(left) + len(right) - shared, 1)


def _shingle_sets(documents: Sequence[Document], title: str) -> Iterator[Shingles]:
    return (shingles(text_of(document)) for document in track(documents, title, unit="documents"))
