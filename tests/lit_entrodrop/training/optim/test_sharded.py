"""Optimizers on two real ranks that shard each parameter, against one whole model."""

from collections.abc import Callable
from copy import deepcopy
from pathlib import Path
from typing import Any

import schedulefree
import torch
from torch import nn
from torch.distributed.checkpoint.state_dict import (
    get_optimizer_state_dict,
    set_optimizer_state_dict,
)
from torch.distributed.fsdp import fully_shard

from lit_entrodrop.training.optim import (
    Muon,
    initialize_state,
    one_mesh_per_group,
    skip_step_if,
    to_evaluation,
    to_training,
)
from tests.helpers.processes import run_ranks

KINDS: list[tuple[Callable[..., Any], float]] = [
    # Its sums over shards are in bfloat16.
    (Muon, 0.02),
    (schedulefree.AdamWScheduleFree, 0.0),
]


def train(layer: nn.Module, optimizer: Any, steps: range) -> None:
    # Gathers the weights to evaluate, which must not be trained.
    layer(torch.ones(1, 5))
    to_training(optimizer, layer)
    for step in steps:
        inputs = torch.randn(8, 5, generator=torch.Generator().manual_seed(step))
        layer(inputs).square().sum().backward()
        with one_mesh_per_group(optimizer):
            skip_step_if(optimizer, torch.tensor(step == 1))
            optimizer.step()
        optimizer.zero_grad()
    to_evaluation(optimizer, layer)


def shard_and_resume(rank: int) -> None:
    for kind, tolerance in KINDS:
        torch.manual_seed(0)
        whole, sharded, resumed = (nn.Linear(5, 7) for _ in range(3))
        sharded.load_state_dict(whole.state_dict())
        resumed.load_state_dict(whole.state_dict())
        optimizers = []
        for layer in (whole, sharded, resumed):
            if layer is not whole:
                fully_shard(layer)
            optimizers.append(kind(layer.parameters(), lr=0.1))
        for layer, optimizer in zip((whole, sharded), optimizers, strict=False):
            train(layer, optimizer, range(3))
        expected = whole.weight.detach()
        torch.testing.assert_close(
            sharded.weight.full_tensor(),  # type: ignore[operator]
            expected,
            atol=tolerance,
            rtol=0,
        )
        # As a folder of shards is loaded.
        initialize_state(optimizers[2], resumed)
        empty = get_optimizer_state_dict(resumed, optimizers[2])
        saved = deepcopy(get_optimizer_state_dict(sharded, optimizers[1]))
        assert empty["state"]["weight"].keys() == saved["state"]["weight"].keys()
        resumed.load_state_dict(sharded.state_dict())
        set_optimizer_state_dict(resumed, optimizers[2], saved)
        for layer, optimizer in zip((sharded, resumed), optimizers[1:], strict=True):
            train(layer, optimizer, range(3, 5))
        ours, theirs = (layer.weight.full_tensor() for layer in (sharded, resumed))  # type: ignore[operator]
        assert torch.equal(ours, theirs)


def test_two_ranks_train_and_resume_shards(tmp_path: Path) -> None:
    run_ranks(shard_and_resume, tmp_path)
