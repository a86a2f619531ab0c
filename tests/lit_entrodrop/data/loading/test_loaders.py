import subprocess
import sys
from itertools import islice
from textwrap import dedent

import pytest
import torch
from torch.utils.data import DistributedSampler

from lit_entrodrop.data.loading.loaders import ResumableDataLoader
from lit_entrodrop.data.packing.best_fit import pack_documents
from lit_entrodrop.data.packing.blocks import PackedBlocks
from lit_entrodrop.model.clean_pass import Batch
from tests.lit_entrodrop.data.packing.test_blocks import random_documents


@pytest.fixture(scope="module")
def blocks() -> PackedBlocks:
    return pack_documents(random_documents(0), block_size=16, pad_id=0)


def loader(blocks: PackedBlocks, epoch: int, workers: int = 0) -> ResumableDataLoader:
    sampler: DistributedSampler[Batch] = DistributedSampler(blocks, num_replicas=1, rank=0, seed=3)
    sampler.set_epoch(epoch)
    return ResumableDataLoader(blocks, batch_size=2, sampler=sampler, num_workers=workers)


def order(loader: ResumableDataLoader) -> list[list[int]]:
    return [batch["block_id"].tolist() for batch in loader]


@pytest.mark.parametrize("workers", [0, 1])
def test_restored_loader_resumes(blocks: PackedBlocks, workers: int) -> None:
    whole = order(loader(blocks, epoch=2, workers=workers))
    interrupted = loader(blocks, epoch=2, workers=workers)
    started = [batch["block_id"].tolist() for batch in islice(interrupted, 3)]
    resumed = loader(blocks, epoch=0, workers=workers)
    resumed.load_state_dict(interrupted.state_dict())
    # As Lightning does it: the iterator is made before the epoch is set.
    iterator = iter(resumed)
    assert isinstance(resumed.sampler, DistributedSampler)
    resumed.sampler.set_epoch(2)
    assert started + [batch["block_id"].tolist() for batch in iterator] == whole
    assert resumed.state_dict() == {"epoch": 2, "batches": len(whole)}
    assert order(resumed) == whole


def test_state_of_another_epoch_is_ignored(blocks: PackedBlocks) -> None:
    finished, following = loader(blocks, epoch=0), loader(blocks, epoch=1)
    order(finished)
    following.load_state_dict(finished.state_dict())
    assert order(following) == order(loader(blocks, epoch=1))


def test_batches_are_int64_of_equal_shape(blocks: PackedBlocks) -> None:
    batch = next(iter(loader(blocks, epoch=0)))
    shapes = {name: tuple(tensor.shape) for name, tensor in batch.items()}
    names = ("input_ids", "labels", "position_ids", "document_ids")
    assert shapes == {**dict.fromkeys(names, (2, 16)), "block_id": (2,)}
    assert all(tensor.dtype == torch.int64 for tensor in batch.values())


def test_script_ends_while_workers_wait() -> None:
    script = """
        from lit_entrodrop.data.loading.loaders import Batching, DataLoader
        options = Batching(2, 1, 1, 0).loader_options()
        loader = DataLoader(range(4), **options)
        print(len(list(loader)))
    """
    done = subprocess.run(
        [sys.executable, "-c", dedent(script)], capture_output=True, text=True, timeout=300
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "2\n", "")
