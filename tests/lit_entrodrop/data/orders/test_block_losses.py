from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from lit_entrodrop.data.orders.block_losses import BlockLosses
from tests.helpers.processes import run_ranks


def record(losses: BlockLosses, **of_blocks: float) -> None:
    """Record one batch of blocks whose names end with their number."""
    blocks = [int(name.lstrip("b_").replace("padding", "-1")) for name in of_blocks]
    nll = torch.tensor(list(of_blocks.values()))[:, None] * torch.tensor([1.0, 3.0, 0.0])
    losses.record(torch.tensor(blocks), nll, torch.tensor([[True, True, False]]).expand_as(nll))


def test_losses_are_means_over_valid_tokens_as_last_read() -> None:
    losses = BlockLosses(4)
    record(losses, b2=1.0, b0=0.5)
    record(losses, b2=4.0, padding=9.0)
    np.testing.assert_array_equal(losses.merge_ranks(), [1, np.nan, 8, np.nan])


def test_a_block_without_a_valid_token_has_no_loss_to_lower() -> None:
    losses = BlockLosses(1)
    nothing: Tensor = torch.zeros(1, 3)
    losses.record(torch.tensor([0]), nothing, nothing.bool())
    assert losses.merge_ranks().tolist() == [0.0]


def test_gradients_are_not_kept() -> None:
    losses, nll = BlockLosses(1), torch.ones(1, 2, requires_grad=True)
    losses.record(torch.tensor([0]), nll, torch.ones(1, 2, dtype=torch.bool))
    assert losses.merge_ranks().tolist() == [1.0]


def test_restored_losses_continue() -> None:
    losses, restored = BlockLosses(3), BlockLosses(3)
    record(losses, b1=2.0)
    restored.load_state_dict(losses.state_dict())
    for each in (losses, restored):
        record(each, b0=1.0)
    ours, theirs = losses.state_dict(), restored.state_dict()
    assert (ours["time"], ours["when"].tolist()) == (2, [2, 1, 0])
    assert theirs["time"] == ours["time"]
    for name in ("values", "when"):
        torch.testing.assert_close(theirs[name], ours[name], equal_nan=True, rtol=0, atol=0)


def merge_on(rank: int) -> None:
    losses = BlockLosses(5)
    # The second rank reads block 1 after the first has, and block 2 at the same time.
    for batch in [[{"b1": 9.0, "b2": 1.0}, {"b0": 0.5}], [{"b3": 2.0, "b2": 2.0}, {"b1": 3.0}]][
        rank
    ]:
        record(losses, **batch)
    expected = [1, 6, 4, 4, np.nan]
    np.testing.assert_array_equal(losses.merge_ranks(), expected)
    np.testing.assert_array_equal(losses.merge_ranks(), expected)
    # Who read it last before the merge matters no more.
    record(losses, **({"b1": 1.0} if rank == 0 else {"b4": 1.0}))
    np.testing.assert_array_equal(losses.merge_ranks(), [1, 2, 4, 4, 2])


def test_two_ranks_agree_on_who_read_a_block_last(tmp_path: Path) -> None:
    run_ranks(merge_on, tmp_path)
