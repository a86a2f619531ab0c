import pytest
from torch.utils.data import DistributedSampler

from lit_entrodrop.data.orders import Shuffled
from tests.lit_entrodrop.data.orders.test_base import epoch


@pytest.mark.parametrize("blocks", [1, 2, 3, 100])
@pytest.mark.parametrize("seed", [0, 7])
@pytest.mark.parametrize("number", [0, 1, 5])
def test_order_is_that_of_the_sampler_of_torch(blocks: int, seed: int, number: int) -> None:
    theirs: DistributedSampler[int] = DistributedSampler(range(blocks), 1, 0, seed=seed)  # type: ignore[arg-type]
    theirs.set_epoch(number)
    assert Shuffled().blocks(epoch(blocks, number, seed)).tolist() == list(theirs)
