import math
from itertools import chain, zip_longest

import numpy as np
import pytest
from torch.utils.data import DistributedSampler

from lit_entrodrop.data.loading.sampling import OrderedSampler, missing_batches
from lit_entrodrop.data.orders import Shuffled
from lit_entrodrop.data.orders.training_order import TrainingOrder
from lit_entrodrop.data.packing.best_fit import pack_documents
from lit_entrodrop.data.packing.blocks import PackedBlocks
from tests.lit_entrodrop.data.packing.test_blocks import random_documents


@pytest.fixture(scope="module")
def blocks() -> PackedBlocks:
    return pack_documents(random_documents(0), block_size=16, pad_id=0)


@pytest.mark.parametrize("ranks", [1, 2, 3, 7])
def test_ordered_ranks_partition_the_blocks_evenly(blocks: PackedBlocks, ranks: int) -> None:
    shares = [list(OrderedSampler(blocks, ranks, rank)) for rank in range(ranks)]
    dealt = [index for share in shares for index in share if index != -1]
    assert sorted(dealt) == list(range(len(blocks)))
    assert len({len(share) for share in shares}) == 1
    assert all(len(share) == len(OrderedSampler(blocks, ranks, 0)) for share in shares)
    assert all(share[:-1] == sorted(share[:-1]) for share in shares)


@pytest.mark.parametrize("ranks", [1, 2, 3, 7])
@pytest.mark.parametrize("epoch", [0, 1])
def test_shuffled_ranks_get_each_block_once(blocks: PackedBlocks, ranks: int, epoch: int) -> None:
    order = TrainingOrder(Shuffled(), len(blocks), seed=3, count_epochs=lambda: 2)
    samplers = [OrderedSampler(blocks, ranks, rank, order) for rank in range(ranks)]
    theirs = [DistributedSampler(blocks, ranks, rank, seed=3) for rank in range(ranks)]
    for sampler in (*samplers, *theirs):
        sampler.set_epoch(epoch)
    shares = [list(sampler) for sampler in samplers]
    dealt = [index for share in shares for index in share if index != -1]
    assert sorted(dealt) == list(range(len(blocks)))
    for share, other in zip(shares, theirs, strict=True):
        assert len(share) == len(other)
        assert all(a in (b, -1) for a, b in zip(share, other, strict=True))


@pytest.mark.parametrize("ranks", [1, 2, 3, 7])
def test_ranks_share_out_blocks_that_repeat(blocks: PackedBlocks, ranks: int) -> None:
    read = np.arange(len(blocks)) // 2
    samplers = [OrderedSampler(blocks, ranks, rank, lambda _: read) for rank in range(ranks)]
    batches = zip_longest(*(list(sampler) for sampler in samplers))
    dealt = [index for batch in batches for index in batch]
    assert dealt[: len(blocks)] == read.tolist()
    assert set(dealt[len(blocks) :]) <= {-1}
    assert len(dealt) == math.ceil(len(blocks) / ranks) * ranks


@pytest.mark.parametrize("ranks", [1, 2, 3])
@pytest.mark.parametrize("seed", range(4))
def test_missing_batches_are_those_of_the_whole(ranks: int, seed: int) -> None:
    known = np.random.default_rng(seed).random(23) < 0.7
    whole = missing_batches(np.zeros(23, dtype=bool), 4)
    shares = [missing_batches(known, 4, ranks, rank) for rank in range(ranks)]
    assert len({len(share) for share in shares}) == 1
    dealt = [batch for batch in chain(*shares) if batch != [-1]]
    assert sorted(dealt) == [batch for batch in whole if not known[batch].all()]
    assert missing_batches(np.ones(23, dtype=bool), 4, ranks) == []
