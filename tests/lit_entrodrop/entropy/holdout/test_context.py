from itertools import pairwise

import numpy as np
import pytest

from lit_entrodrop.data.packing.best_fit import pack_documents
from lit_entrodrop.data.packing.blocks import PackedBlocks
from lit_entrodrop.data.tokenizing import TokenizedDocuments
from lit_entrodrop.entropy.holdout.context import with_context

RANDOM = np.random.default_rng(0)
BLOCK = 12


def random_blocks(count: int) -> PackedBlocks:
    """Make documents of prompts and completions, some of them longer than a block."""
    lengths = RANDOM.integers(2, 30, count)
    tokens = RANDOM.integers(1, 900, lengths.sum()).astype(np.uint16)
    counted = RANDOM.random(len(tokens)) < 0.6
    return pack_documents(TokenizedDocuments(tokens, counted, lengths), BLOCK, pad_id=0)


def pieces(blocks: PackedBlocks) -> list[list[tuple[int, bool]]]:
    """Return token and whether it counts, of each chunk."""
    pairs = list(zip(*(values.tolist() for values in blocks.gather()), strict=True))
    return [pairs[start:end] for start, end in pairwise(blocks.chunk_starts)]


@pytest.mark.parametrize("packing", [True, False])
@pytest.mark.parametrize("length", [96, 48, 20, 12])
def test_neighbors_stand_before_their_chunk(length: int, packing: bool) -> None:
    train, holdout = random_blocks(30), random_blocks(10)
    own, pool = pieces(train), pieces(holdout)
    neighbors = RANDOM.integers(0, len(pool), (len(own), 3))
    joined, counted = with_context(train, holdout, neighbors, length, packing)
    assert joined.block_size == length
    assert packing or len(joined) == len(own)
    assert not packing or length < 96 or len(joined) < len(own)
    alone = np.split(counted, train.chunk_starts[1:-1])
    numbers = joined.chunks.documents.tolist()
    assert sorted(numbers) == list(range(len(own)))
    for number, row in zip(numbers, pieces(joined), strict=True):
        chunk = own[number]
        room = max(length - len(chunk), length // 2) // 3
        before = [pair[0] for each in neighbors[number][::-1] for pair in pool[each][:room]]
        kept = chunk[: length - len(before)]
        assert [token for token, _ in row] == before + [token for token, _ in kept]
        assert [counts for _, counts in row] == [False] * len(before) + [c for _, c in kept]
        cut = [False] * (len(chunk) - len(kept))
        assert alone[number].tolist() == [counts for _, counts in kept] + cut
        if length >= 48:
            assert len(kept) == len(chunk)


def test_more_neighbors_than_there_is_room_for_are_refused() -> None:
    train, holdout = random_blocks(3), random_blocks(9)
    neighbors = np.zeros((train.num_chunks, 7), np.int64)
    with pytest.raises(ValueError, match="neighbors: expected at most 6, half the 12 tokens"):
        with_context(train, holdout, neighbors, BLOCK)
