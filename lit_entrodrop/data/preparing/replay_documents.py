"""Documents of replay: a bounded sample of a corpus of any size."""

import heapq
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace
from itertools import count
from pathlib import Path

from lit_entrodrop.data.adjustments import BEYOND_LIMIT, EVALUATION_TEXT
from lit_entrodrop.data.documents import Document
from lit_entrodrop.data.mixing import REPLAY
from lit_entrodrop.data.preparing.packed_splits import PackedSplit
from lit_entrodrop.data.preparing.splitting import split_documents
from lit_entrodrop.data.preparing.stored_documents import (
    StoredDocuments,
    digest_document,
    store_documents,
)

# More than a token of text takes in any tokenizer, on average.
BYTES_PER_TOKEN = 16


def store_sample(
    documents: Iterable[Document], max_tokens: int, seed: int, folder: Path | None = None
) -> tuple[StoredDocuments, int]:
    """Store the documents of the lowest seeded hash, with text for at least `max_tokens`.

    The corpus is read once, one document at a time. Memory and disk depend on `max_tokens` alone,
    up to the logarithm of the size of the corpus.

    Args:
        documents: The corpus.
        max_tokens: Number of tokens that are needed.
        seed: Seed of the hash.
        folder: Path to the folder of the temporary file; by default that of the system.

    Returns:
        The sample, in the order of the hash, and the number of documents in the corpus.
    """
    numbers = count()
    read = (document for document, _ in zip(documents, numbers, strict=False))
    likely = _likely(read, seed, BYTES_PER_TOKEN * max_tokens)
    sample = split_documents(store_documents(likely, seed, folder), 0, 0)["train"]
    return sample, next(numbers)


def prepare_replay(
    sample: StoredDocuments,
    num_read: int,
    max_tokens: int,
    documents: Mapping[str, StoredDocuments],
    splits: Mapping[str, PackedSplit],
    prepare: Callable[..., PackedSplit],
) -> PackedSplit:
    """Prepare the documents of replay that no split evaluates.

    Args:
        sample: Documents of replay.
        num_read: Number of documents in the corpus of replay.
        max_tokens: Maximum number of tokens.
        documents: Documents of each split.
        splits: The same splits, packed; of a limited one, only the first documents are evaluated.
        prepare: Function that prepares a split.

    Raises:
        ValueError: If none is left.
    """
    kept = sample
    for name, split in splits.items():
        if name not in ("train", "holdout"):
            evaluated = len(documents[name]) - split.adjustments.get(BEYOND_LIMIT, 0)
            kept = kept.select(~kept.is_in(documents[name][:evaluated]))
    if not kept:
        raise ValueError(
            "data.replay.corpus: expected documents that are in no evaluation text, got none: "
            "name a larger corpus, or lower data.forgetting_tokens"
        )
    prepared = prepare(kept, max_tokens=max_tokens, name=REPLAY)
    beyond = prepared.adjustments.get(BEYOND_LIMIT, 0) + num_read - len(sample)
    counts = {BEYOND_LIMIT: beyond, EVALUATION_TEXT: len(sample) - len(kept)}
    return replace(prepared, adjustments={**prepared.adjustments, **counts})


def _likely(documents: Iterable[Document], seed: int, size: int) -> Iterator[Document]:
    """Yield each document that is in the sample of what was read so far."""
    lowest: list[tuple[int, int]] = []
    total = 0
    for document in documents:
        digest, length = digest_document(document, seed), len(document.content.encode())
        if total >= size and digest > -lowest[0][0]:
            continue
        yield document
        heapq.heappush(lowest, (-digest, length))
        total += length
        while total - lowest[0][1] >= size:
            total -= heapq.heappop(lowest)[1]
