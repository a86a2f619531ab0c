"""Split a corpus by a hash of each document, so that equal documents share a split."""

from collections.abc import Mapping, Sequence
from itertools import accumulate
from pathlib import Path

import numpy as np
from lightning.pytorch.utilities import rank_zero_warn
from numpy.typing import NDArray

from lit_entrodrop.data.preparing.stored_documents import StoredDocuments, store_documents
from lit_entrodrop.data.reading_options import ReadingOptions
from lit_entrodrop.data.sources import read_corpus

SPLITS = ("train", "validation", "test", "holdout")


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
    options: ReadingOptions,
    split_seed: int,
    folder: Path | None = None,
) -> dict[str, StoredDocuments]:
    """Read the corpus, split it, and read the separate corpora of other splits.

    Args:
        corpus: Sources of the corpus, as for `read_corpus`.
        split_sources: For "validation", "test" and "holdout", a share of the documents or the
            source of a separate corpus; 0 for no such split. For an evaluation set, its source.
        options: Options of reading.
        split_seed: Seed of the split.
        folder: Path to the folder of temporary files; by default that of the system.

    Raises:
        ValueError: If a requested split has no document.
    """
    shares = split_shares(split_sources)
    documents = store_documents(read_corpus(corpus, options), split_seed, folder)
    splits = split_documents(documents, **{n: of for n, of in shares.items() if n in SPLITS})
    for name, source in split_sources.items():
        if isinstance(source, str):
            own = read_corpus([source], options)
            splits[name] = store_documents(own, split_seed, folder)
            _drop_shared("train", name, splits)
    # Holdout text weights the training documents, so it must not contain evaluation text.
    for name in splits.keys() - {"train", "holdout"}:
        _drop_shared("holdout", name, splits)
    requested = {
        name: split for name, split in splits.items() if split_sources.get(name, name == "train")
    }
    for name, split in requested.items():
        if not split:
            kept_out = " besides evaluation text" if name in ("train", "holdout") else ""
            raise ValueError(
                f"no document for {name}: the split of {len(documents)} documents by {shares} left "
                f"none{kept_out}. Give more documents (<|endoftext|> cuts a .txt file), or set a "
                "share to 0 or to a separate corpus."
            )
    return requested


def split_documents(
    documents: StoredDocuments, validation: float, test: float, holdout: float = 0.0
) -> dict[str, StoredDocuments]:
    """Assign documents to splits by their seeded hash, and sort each split by it.

    A document keeps its split when other documents are added or removed. Shares are expected ones;
    that of `holdout` is taken from training alone. If there are so few documents that a share gets
    none, it gets the next one in the order of the hash.

    >>> from lit_entrodrop.data.documents import Document
    >>> numbers = store_documents([Document("text", str(n)) for n in range(100)], seed=0)
    >>> splits = split_documents(numbers, validation=0.1, test=0.1)
    >>> [len(splits[name]) for name in SPLITS]
    [83, 9, 8, 0]
    """
    order = np.argsort(documents.digests, kind="stable")
    digests, shares = documents.digests[order], (validation, test, holdout)
    ends = np.searchsorted(positions(digests), list(accumulate(shares))).tolist()
    cuts = [0]
    for share, end in zip(shares, ends, strict=True):
        start = cuts[-1]
        if share and end <= start < len(digests):
            end = int(np.searchsorted(digests, digests[start], side="right"))
        cuts.append(max(start, end))
    parts = dict(
        zip(("validation", "test", "holdout", "train"), np.split(order, cuts[1:]), strict=True)
    )
    return {name: documents.select(parts[name]) for name in SPLITS}


def positions(digests: NDArray[np.uint64]) -> NDArray[np.float64]:
    """Map digests to [0, 1), [documents] float64.

    A float64 has 53 bits: more could round up to 1.

    >>> positions(np.array([0, 2**64 - 1], dtype=np.uint64)).tolist()
    [0.0, 0.9999999999999999]
    """
    return (digests >> np.uint64(11)) / 2**53


def _drop_shared(name: str, other: str, splits: dict[str, StoredDocuments]) -> None:
    shared = splits[name].is_in(splits[other])
    if dropped := int(shared.sum()):
        rank_zero_warn(
            f"{dropped} documents of {other} are in {name} too: they were left out of {name}, "
            f"because they would make results on {other} look better than they are."
        )
    splits[name] = splits[name].select(~shared)
