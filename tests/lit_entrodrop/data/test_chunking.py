import numpy as np
import pytest

from lit_entrodrop.data.chunking import chunk_documents, gather_chunks


@pytest.mark.parametrize("seed", range(20))
def test_chunks_cover_documents(seed: int) -> None:
    random = np.random.default_rng(seed)
    block_size = int(random.integers(2, 20))
    lengths = random.integers(1, 70, size=50)
    chunks = chunk_documents(lengths, block_size)
    ends = set(np.cumsum(chunks).tolist())
    assert chunks.min() >= 1
    assert chunks.max() <= block_size
    assert ends.issuperset(np.cumsum(lengths).tolist())
    assert len(chunks) == sum(-(-length // block_size) for length in lengths.tolist())


def test_no_chunk_of_a_longer_document_is_a_single_token() -> None:
    lengths = np.arange(2, 200)
    assert all(chunk_documents(lengths, block_size).min() >= 2 for block_size in range(3, 30))


def test_gathered_chunks_match_slices() -> None:
    starts, lengths = np.array([7, 0, 30]), np.array([3, 5, 1])
    slices = [range(s, s + n) for s, n in zip(starts.tolist(), lengths.tolist(), strict=True)]
    assert gather_chunks(starts, lengths).tolist() == [index for part in slices for index in part]
