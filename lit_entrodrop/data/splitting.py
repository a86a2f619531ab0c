"""Split documents by a hash of their content, so that equal documents share a side."""

import hashlib
from collections.abc import Iterable, Sequence

from lit_entrodrop.data.documents import Document

SPLITS = ("train", "validation", "test")


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
    documents: Iterable[Document], validation: float, test: float, seed: int
) -> dict[str, list[Document]]:
    """Deal documents to train, validation and test, and order each split by the seeded hash.

    A document keeps its split when others are added or removed.

    Args:
        documents: The documents of the corpus.
        validation: Expected share of documents for validation, in [0, 1).
        test: Expected share of documents for test, in [0, 1).
        seed: Seed of the hash.

    Returns:
        The documents of "train", "validation" and "test".

    >>> sides = split_documents([Document("text", str(n)) for n in range(100)], 0.1, 0.1, seed=0)
    >>> [len(sides[split]) for split in SPLITS]
    [83, 9, 8]
    """
    placed = sorted((split_position(document, seed), document) for document in documents)
    sides: dict[str, list[Document]] = {split: [] for split in SPLITS}
    for position, document in placed:
        side = "validation" if position < validation else "train"
        if validation <= position < validation + test:
            side = "test"
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
