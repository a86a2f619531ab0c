import numpy as np
import pytest

from lit_entrodrop.data.packing.chunking import chunk_documents, gather_chunks


@pytest.mark.parametrize("seed", range(20))
def test_chunks_of_plain_text_partition_it(seed: int) -> None:
    random = np.random.default_rng(seed)
    block_size = int(random.integers(3, 20))
    lengths = random.integers(1, 70, size=50)
    chunks = chunk_documents(lengths, np.ones(lengths.sum(), bool), block_size)
    ends = set(np.cumsum(chunks.lengths).tolist())
    assert chunks.lengths.min() >= 1
    assert chunks.lengths.max() <= block_size
    assert ends.issuperset(np.cumsum(lengths).tolist())
    assert len(chunks.starts) == sum(-(-length // block_size) for length in lengths.tolist())
    assert chunks.starts.tolist() == [0, *np.cumsum(chunks.lengths)[:-1]]
    assert (chunks.first_labels == chunks.starts + 1).all()


@pytest.mark.parametrize("seed", range(20))
def test_every_label_of_a_prompt_or_chat_is_in_one_chunk_after_its_context(seed: int) -> None:
    random = np.random.default_rng(seed)
    block_size = int(random.integers(2, 20))
    lengths = random.integers(2, 120, size=50)
    counted = np.repeat(random.random(lengths.sum() // 3 + 1) < 0.3, 3)[: lengths.sum()]
    starts = np.cumsum(lengths) - lengths
    counted[starts] = False
    counted[starts + lengths - 1] = True
    labels: list[int] = []
    for start, length, first, document in zip(
        *chunk_documents(lengths, counted, block_size), strict=True
    ):
        assert length <= block_size
        assert starts[document] <= start < first
        assert start + length <= starts[document] + lengths[document]
        own = first + np.flatnonzero(counted[first : start + length])
        assert own[0] - start >= min(block_size // 2, own[0] - starts[document])
        if lengths[document] > block_size:
            assert own[0] == first
            # No further context would fit.
            assert length == block_size or start == starts[document]
        labels.extend(own)
    assert labels == np.flatnonzero(counted).tolist()


def test_blocks_of_two_have_a_label_each() -> None:
    chunks = chunk_documents(np.array([5, 2, 3]), np.ones(10, bool), 2)
    assert chunks.starts.tolist() == [0, 2, 3, 5, 7, 8]
    assert chunks.lengths.tolist() == [2] * 6
    assert chunks.first_labels.tolist() == [1, 3, 4, 6, 8, 9]


def test_prompt_is_cut_on_the_left_beside_its_completion() -> None:
    counted = np.arange(200) >= 197
    assert [value.tolist() for value in chunk_documents(np.array([200]), counted, 64)] == [
        [136],
        [64],
        [197],
        [0],
    ]


def test_long_chat_costs_at_most_twice_its_length() -> None:
    counted = np.arange(10_000) % 10 >= 5
    chunks = chunk_documents(np.array([10_000]), counted, 64)
    assert chunks.lengths.sum() <= 20_000


def test_no_chunk_of_a_longer_document_is_a_single_token() -> None:
    lengths = np.arange(2, 200)
    everywhere = np.ones(lengths.sum(), bool)
    for block_size in range(3, 30):
        assert chunk_documents(lengths, everywhere, block_size).lengths.min() >= 2


def test_gathered_chunks_match_slices() -> None:
    starts, lengths = np.array([7, 0, 30]), np.array([3, 5, 1])
    slices = [range(s, s + n) for s, n in zip(starts.tolist(), lengths.tolist(), strict=True)]
    assert gather_chunks(starts, lengths).tolist() == [index for part in slices for index in part]
