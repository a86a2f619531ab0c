from collections.abc import Callable
from copy import deepcopy
from functools import partial
from typing import Any

import pytest
import schedulefree
import torch
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor import Replicate, distribute_tensor

from lit_entrodrop.training.optim import AdamW, Muon, clip_gradient_norm, skip_step_if

SGD = partial(torch.optim.SGD, momentum=0.9)


def schedule_free(*args: Any, **settings: Any) -> torch.optim.Optimizer:
    optimizer = schedulefree.AdamWScheduleFree(*args, **settings)
    optimizer.train()
    return optimizer


@pytest.mark.parametrize("kind", [AdamW, torch.optim.AdamW, SGD, Muon, schedule_free])
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
    values, states, groups = [], [], []
    for skipped in (False, True, False):
        parameter.grad = torch.zeros_like(weight) if skipped else torch.ones_like(weight)
        skip_step_if(optimizer, torch.tensor(skipped))
        clip_gradient_norm(optimizer, 1.0)
        optimizer.step()
        schedule.step()
        values.append(parameter.detach().clone())
        states.append(deepcopy(optimizer.state[parameter]))
        # Some count their steps here.
        [group] = optimizer.param_groups
        groups.append({**group, "params": None})
    assert torch.equal(values[0], values[1])
    assert groups[0] == groups[1]
    assert not torch.equal(values[1], values[2])
    for name, value in states[0].items():
        assert torch.equal(states[1][name], value)
        assert not torch.equal(states[2][name], value)


class Wrapper:
    """Sets gradients within its step, in two parts, as DeepSpeed does."""

    def __init__(self, optimizer: torch.optim.Optimizer) -> None:
        self.optimizer = optimizer
        self.param_groups = optimizer.param_groups
        self.parts = optimizer.param_groups[0]["params"]

    def zero_grad(self) -> None:
        pass

    def step(self) -> None:
        for part in self.parts:
            self.optimizer.param_groups[0]["params"] = [part]
            part.grad = torch.ones_like(part)
            self.optimizer.step()


@pytest.mark.parametrize("kind", [torch.optim.AdamW, SGD, schedule_free])
def test_a_wrapped_optimizer_skips_all_its_parts(
    kind: Callable[..., torch.optim.Optimizer],
) -> None:
    parts = [nn.Parameter(torch.ones(2)) for _ in range(2)]
    inner = kind(parts, lr=0.1, weight_decay=0.3)
    wrapper: Any = Wrapper(inner)
    seen = []
    for skipped in (False, True, False):
        skip_step_if(wrapper, torch.tensor(skipped))
        wrapper.step()
        seen.append(deepcopy([parts, [inner.state[part] for part in parts]]))
    first, second, third = map(str, seen)
    assert first == second != third
