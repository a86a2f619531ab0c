"""Split a corpus by a hash of each document, so that equal documents share a split."""

import hashlib
from bisect import bisect
from collections.abc import Iterable, Mapping, Sequence
from itertools import accumulate
from typing import Literal

from lightning.pytorch.utilities import rank_zero_warn

from lit_entrodrop.data.documents import Document
from lit_entrodrop.data.sources import read_corpus

SPLITS = ("train", "validation", "test", "holdout")
SplitName = Literal["train", "validation", "test"]


def split_shares(split_sources: Mapping[str, float | str]) -> dict[str, float]:
    """Return the share of the corpus that each split takes; 0 for a separate corpus.

    Raises:
        ValueError: If a share is negative, or the shares leave nothing for training.

    >>> split_shares({"validation": 0.1, "test": "exam.jsonl"})
    {'validation': 0.1, 'test': 0.0}
    """
    shares = {
        name: 0.0 if isinstance(source, str) else source for name, source in split_sources.items()
    }
    if min(shares.values()) < 0 or not sum(shares.values()) < 1:
        given = ", ".join(f"{name} {source!r}" for name, source in split_sources.items())
        raise ValueError(
            "validation, test and holdout: expected shares of at least 0 that add to less than 1, "
            f"got {given}. Use for example 0.1 and 0.1, or paths."
        )
    return shares


def read_and_split(
    corpus: Sequence[str],
    split_sources: Mapping[str, float | str],
    text_column: str,
    split_seed: int,
) -> dict[str, list[Document]]:
    """Read the corpus, split it, and read the separate corpora of other splits.

    Args:
        corpus: Sources of the corpus, as for `read_corpus`.
        split_sources: For "validation", "test" and "holdout", a share of the documents or the
            source of a separate corpus; 0 for no such split.
        text_column: Name of the column with plain text.
        split_seed: Seed of the split.

    Raises:
        ValueError: If a requested split has no document.
    """
    shares = split_shares(split_sources)
    documents = list(read_corpus(corpus, text_column))
    splits = split_documents(documents, **shares, seed=split_seed)
    for name, source in split_sources.items():
        if isinstance(source, str):
            splits[name] = list(read_corpus([source], text_column))
            _drop_shared("train", name, splits)
    # Holdout text weights the training documents, so it must not contain evaluation text.
    for name in ("validation", "test"):
        _drop_shared("holdout", name, splits)
    requested = {
        name: split for name, split in splits.items() if split_sources.get(name, name == "train")
    }
    for name, split in requested.items():
        if not split:
            raise ValueError(
                f"no document for {name}: the split of {len(documents)} documents by {shares} left "
                "none. Give more documents (lines with only <|endoftext|> cut a .txt file), "
                f"another share or split_seed, or {name} its own path."
            )
    return requested


def split_documents(
    documents: Iterable[Document], validation: float, test: float, seed: int, holdout: float = 0.0
) -> dict[str, list[Document]]:
    """Assign documents to splits, and sort each split by the seeded hash.

    A document keeps its split when other documents are added or removed. Shares are expected ones;
    that of `holdout` is taken from training alone.

    >>> splits = split_documents([Document("text", str(n)) for n in range(100)], 0.1, 0.1, seed=0)
    >>> [len(splits[name]) for name in SPLITS]
    [83, 9, 8, 0]
    """
    placed = sorted((split_position(document, seed), document) for document in documents)
    splits: dict[str, list[Document]] = {name: [] for name in SPLITS}
    ends = list(accumulate((validation, test, holdout)))
    for position, document in placed:
        name = ("validation", "test", "holdout", "train")[bisect(ends, position)]
        splits[name].append(document)
    return splits


def split_position(document: Document, seed: int) -> float:
    """Map a document to [0, 1) by its content: blake2b(seed, kind, content) as a uniform number.

    >>> round(split_position(Document("text", "Fever."), seed=0), 4)
    0.5439
    """
    content = f"{seed}\n{document.kind}\n{document.content}".encode()
    digest = hashlib.blake2b(content, digest_size=8).digest()
    # A float64 has 53 bits: more could round up to 1.
    return (int.from_bytes(digest, "big") >> 11) / 2**53


def _drop_shared(name: str, other: str, splits: dict[str, list[Document]]) -> None:
    others = set(splits[other])
    kept = [document for document in splits[name] if document not in others]
    if dropped := len(splits[name]) - len(kept):
        rank_zero_warn(
            f"{dropped} documents of {other} are in {name} too: they were left out of {name}, "
            f"because they would make results on {other} look better than they are."
        )
    splits[name] = kept
