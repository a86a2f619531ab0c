import random

import pytest

from lit_entrodrop.data.documents import Document
from lit_entrodrop.data.preparing import replay_documents
from lit_entrodrop.data.preparing.replay_documents import store_sample
from lit_entrodrop.data.preparing.stored_documents import digest_document


@pytest.mark.parametrize("max_tokens", [1, 40, 10_000])
def test_sample_has_the_lowest_hashes(max_tokens: int) -> None:
    draw = random.Random(max_tokens)
    documents = [Document("text", str(n) * draw.randint(1, 40)) for n in range(500)]
    sample, count = store_sample(documents, max_tokens, seed=3)
    assert count == 500
    ordered = sorted(documents, key=lambda document: digest_document(document, 3))
    needed = replay_documents.BYTES_PER_TOKEN * max_tokens
    expected, size = [], 0
    for document in ordered:
        if size >= needed:
            break
        expected.append(document)
        size += len(document.content)
    assert list(sample[: len(expected)]) == expected


def test_what_is_stored_grows_with_the_logarithm_of_the_corpus() -> None:
    documents = [Document("text", f"{n:06}") for n in range(20_000)]
    stored, _ = store_sample(documents, 100, seed=0)
    # 267 documents have the bytes that 100 tokens may need; 267 · (1 + ln 75) come into question.
    assert 267 <= len(stored) < 267 * 7
