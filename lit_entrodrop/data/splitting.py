"""Split documents by a hash of their content, so that equal documents share a side."""

import hashlib
from bisect import bisect
from collections.abc import Iterable, Sequence
from itertools import accumulate

from lit_entrodrop.data.documents import Document

SPLITS = ("train", "validation", "test", "holdout")


def split_position(document: Document, seed: int) -> float:
    """Place a document in [0, 1) by its content alone.

    Args:
        document: The document.
        seed: Another seed gives another, independent place.

    Returns:
        blake2b(seed, kind, content) as a uniform number in [0, 1).

    >>> round(split_position(Document("text", "Fever."), seed=0), 4)
    0.5439
    """
    content = f"{seed}\n{document.kind}\n{document.content}".encode()
    digest = hashlib.blake2b(content, digest_size=8).digest()
    # 53 bits are what a float64 holds: more could round up to 1.
    return (int.from_bytes(digest, "big") >> 11) / 2**53


def split_documents(
    documents: Iterable[Document], validation: float, test: float, seed: int, holdout: float = 0.0
) -> dict[str, list[Document]]:
    """Deal documents to the splits, and order each split by the seeded hash.

    A document keeps its split when others are added or removed, and what `holdout` takes, it takes
    from training alone.

    Args:
        documents: The documents of the corpus.
        validation: Expected share of documents for validation, in [0, 1).
        test: Expected share of documents for test, in [0, 1).
        seed: Seed of the hash.
        holdout: Expected share of documents for holdout, in [0, 1).

    Returns:
        The documents of "train", "validation", "test" and "holdout".

    >>> sides = split_documents([Document("text", str(n)) for n in range(100)], 0.1, 0.1, seed=0)
    >>> [len(sides[split]) for split in SPLITS]
    [83, 9, 8, 0]
    """
    placed = sorted((split_position(document, seed), document) for document in documents)
    sides: dict[str, list[Document]] = {split: [] for split in SPLITS}
    ends = list(accumulate((validation, test, holdout)))
    for position, document in placed:
        side = ("validation", "test", "holdout", "train")[bisect(ends, position)]
        sides[side].append(document)
    return sides


def count_duplicates(documents: Sequence[Document]) -> int:
    """Count the documents that repeat an earlier one exactly.

    Args:
        documents: Any documents.

    Returns:
        The number of documents minus the number of distinct ones.

    >>> count_duplicates([Document("text", "a"), Document("text", "a"), Document("text", "b")])
    1
    """
    return len(documents) - len(set(documents))
