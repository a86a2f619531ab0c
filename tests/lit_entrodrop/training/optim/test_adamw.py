from collections.abc import Callable
from copy import deepcopy
from functools import partial

import pytest
import torch
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor import Replicate, distribute_tensor

from lit_entrodrop.training.optim import (
    AdamW,
    clip_gradient_norm,
    skip_step_if,
)


def test_adamw_is_fused_and_equals_torchs() -> None:
    weights = [torch.randn(3, 3, generator=torch.Generator().manual_seed(0)) for _ in range(2)]
    for weight in weights:
        weight.requires_grad_()
    settings = {"lr": 0.1, "betas": (0.8, 0.9), "eps": 1e-6, "weight_decay": 0.3}
    own = AdamW([weights[0]], **settings)  # type: ignore[arg-type]
    reference = torch.optim.AdamW([weights[1]], **settings)  # type: ignore[arg-type]
    assert own.param_groups[0]["fused"]
    for _ in range(3):
        for weight, optimizer in zip(weights, (own, reference), strict=True):
            optimizer.zero_grad()
            weight.square().sum().backward()
            optimizer.step()
    torch.testing.assert_close(weights[0], weights[1])


SGD = partial(torch.optim.SGD, momentum=0.9)


@pytest.mark.parametrize("kind", [AdamW, torch.optim.AdamW, SGD])
@pytest.mark.parametrize("mesh", [False, True])
def test_a_skipped_step_leaves_weights_and_momentum(
    single_rank: None, kind: Callable[..., torch.optim.Optimizer], mesh: bool
) -> None:
    """Momentum and weight decay would move them without a gradient."""
    weight = torch.ones(2, 2)
    if mesh:
        weight = distribute_tensor(weight, init_device_mesh("cpu", (1,)), [Replicate()])
    parameter = nn.Parameter(weight)
    optimizer = kind([parameter], lr=0.1, weight_decay=0.3)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda _: 1.0)
    values, states = [], []
    for skipped in (False, True, False):
        parameter.grad = torch.zeros_like(weight) if skipped else torch.ones_like(weight)
        skip_step_if(optimizer, torch.tensor(skipped))
        clip_gradient_norm(optimizer, 1.0)
        optimizer.step()
        schedule.step()
        values.append(parameter.detach().clone())
        states.append(deepcopy(optimizer.state[parameter]))
    assert torch.equal(values[0], values[1])
    assert not torch.equal(values[1], values[2])
    for name, value in states[0].items():
        assert torch.equal(states[1][name], value)
        assert not torch.equal(states[2][name], value)
