import math
from collections import Counter
from itertools import pairwise

import numpy as np
import pytest

from lit_entrodrop.data.packing.best_fit import pack_documents
from lit_entrodrop.data.packing.blocks import PackedBlocks
from lit_entrodrop.data.tokenizing import TokenizedDocuments
from lit_entrodrop.entropy.holdout import nearest
from lit_entrodrop.entropy.holdout.nearest import nearest_chunks

RANDOM = np.random.default_rng(0)


def blocks_of(documents: list[list[int]], block_size: int = 16) -> PackedBlocks:
    tokens = np.array([token for document in documents for token in document], np.uint16)
    lengths = np.array([len(document) for document in documents])
    everywhere = np.ones(len(tokens), np.bool_)
    return pack_documents(TokenizedDocuments(tokens, everywhere, lengths), block_size, pad_id=0)


def chunks_of(blocks: PackedBlocks) -> list[list[int]]:
    tokens = blocks.gather()[0].tolist()
    return [tokens[start:end] for start, end in pairwise(blocks.chunk_starts)]


def random_blocks(count: int) -> PackedBlocks:
    """Make documents in which some words are frequent, and some are longer than a block."""
    draw = RANDOM.zipf(1.3, (count, 30)) % 50
    return blocks_of([row[: RANDOM.integers(2, 30)].tolist() for row in draw])


def cosines(chunk: list[int], pool: list[list[int]]) -> list[float]:
    """Compute the cosine of TF-IDF vectors, word by word."""
    rarity = {
        word: math.log((1 + len(pool)) / (1 + sum(word in other for other in pool)))
        for word in {*chunk, *(word for other in pool for word in other)}
    }

    def vector(words: list[int]) -> dict[int, float]:
        return {word: times * rarity[word] for word, times in Counter(words).items()}

    def norm(of: dict[int, float]) -> float:
        return math.sqrt(sum(value * value for value in of.values()))

    own = vector(chunk)
    others = [vector(other) for other in pool]
    return [
        sum(own[word] * value for word, value in other.items() if word in own)
        / max(norm(own) * norm(other), 1e-12)
        for other in others
    ]


@pytest.mark.parametrize("slab", [2**22, 60])
def test_neighbors_are_those_of_greatest_cosine(slab: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nearest, "SLAB", slab)
    train, holdout = random_blocks(40), random_blocks(20)
    pool = chunks_of(holdout)
    found = nearest_chunks(train, holdout, 3)
    assert found.shape == (train.num_chunks, 3)
    for chunk, chosen in zip(chunks_of(train), found.tolist(), strict=True):
        similarity = cosines(chunk, pool)
        assert len(set(chosen)) == 3
        best = sorted(similarity, reverse=True)[:3]
        assert [similarity[one] for one in chosen] == pytest.approx(best, abs=1e-6)


def test_rare_words_decide() -> None:
    holdout = blocks_of([[1, 1, 1, 7], [1, 1, 1, 8], [1, 1, 1, 9]])
    [found] = nearest_chunks(blocks_of([[1, 1, 1, 1, 1, 8]]), holdout, 1).tolist()
    assert 8 in chunks_of(holdout)[found[0]]


def test_all_are_neighbors_where_there_are_few() -> None:
    train = blocks_of([[1, 2], [3, 4]])
    assert nearest_chunks(train, blocks_of([[3, 9], [1, 9]]), 3).tolist() == [[1, 0], [0, 1]]
    assert nearest_chunks(train, blocks_of([[5, 6]]), 3).tolist() == [[0], [0]]
