import math
from collections.abc import Callable
from copy import deepcopy
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor import Replicate, distribute_tensor

from lit_entrodrop.training.optim import (
    AdamW,
    LRSchedule,
    check_can_step,
    clip_gradient_norm,
    decay_groups,
    local_gradients,
    one_mesh_per_group,
    skip_step_if,
)


@pytest.fixture
def single_rank(tmp_path: Path) -> None:
    dist.init_process_group("gloo", init_method=f"file://{tmp_path}/meet", rank=0, world_size=1)


def curve(schedule: LRSchedule, total: int) -> np.ndarray:
    return np.array([schedule.factor(step, total) for step in range(total + 1)])


@pytest.mark.parametrize("warmup", [10, 0.1])
def test_warmup_rises_linearly_to_the_peak(warmup: float) -> None:
    rates = curve(LRSchedule(warmup=warmup), 100)
    np.testing.assert_allclose(rates[:10], np.arange(1, 11) / 10)
    assert rates[10] == 1
    assert (np.diff(rates[10:]) <= 0).all()


@pytest.mark.parametrize(
    ("decay", "halfway"), [("cosine", 0.55), ("linear", 0.55), ("constant", 1.0)]
)
def test_decay_ends_at_the_final_share(decay: str, halfway: float) -> None:
    rates = curve(LRSchedule(0, decay, final=0.1), 100)  # type: ignore[arg-type]
    assert rates[0] == 1
    assert rates[50] == pytest.approx(halfway)
    assert rates[100] == pytest.approx(1 if decay == "constant" else 0.1)


def test_cosine_quarter() -> None:
    assert LRSchedule(0).factor(25, 100) == pytest.approx((1 + math.sqrt(0.5)) / 2)


@pytest.mark.parametrize("total", [1, 2, 3])
def test_shortest_runs(total: int) -> None:
    for schedule in (LRSchedule(), LRSchedule(warmup=10), LRSchedule(warmup=0)):
        assert (curve(schedule, total)[:total] > 0).all()
        assert (curve(schedule, total) <= 1).all()


def test_steps_beyond_the_end_stay_at_the_final_rate() -> None:
    assert LRSchedule(final=0.2).factor(500, 100) == pytest.approx(0.2)


@pytest.mark.parametrize(
    "settings",
    [{"warmup": -1}, {"warmup": math.inf}, {"warmup": math.nan}, {"final": 1.5}, {"final": -0.1}],
)
def test_settings_out_of_range_are_refused(settings: dict[str, float]) -> None:
    with pytest.raises(
        ValueError, match=r"lr_schedule: expected warmup >= 0 and final in \[0, 1\]"
    ):
        LRSchedule(**settings)  # type: ignore[arg-type]


def test_groups_hold_each_trainable_parameter_once() -> None:
    module = nn.Sequential(nn.Embedding(5, 4), nn.LayerNorm(4), nn.Linear(4, 5))
    module[2].weight = module[0].weight
    module[1].bias.requires_grad_(False)
    decaying, others = decay_groups(module)
    assert [id(p) for p in decaying["params"]] == [id(module[0].weight)]
    assert [id(p) for p in others["params"]] == [id(module[1].weight), id(module[2].bias)]
    assert others["weight_decay"] == 0
    assert "weight_decay" not in decaying


def test_groups_are_split_by_mesh_for_a_while_only(single_rank: None) -> None:
    meshes = [init_device_mesh("cpu", shape) for shape in ((1,), (1, 1))]
    parameters = [nn.Parameter(torch.ones(2))]
    for mesh in meshes:
        placements = [Replicate()] * mesh.ndim
        parameters.append(nn.Parameter(distribute_tensor(torch.ones(2), mesh, placements)))
    optimizer = AdamW([{"params": parameters[:2]}, {"params": parameters[2:], "lr": 0.5}])
    whole = optimizer.param_groups
    with one_mesh_per_group(optimizer):
        sizes = [(len(group["params"]), group["lr"]) for group in optimizer.param_groups]
    assert sizes == [(1, 2e-5), (1, 2e-5), (1, 0.5)]
    assert optimizer.param_groups is whole


def test_the_norm_is_of_all_parameters_on_any_mesh(single_rank: None) -> None:
    values = [torch.tensor([3.0, 0.0]), torch.tensor([0.0, 4.0]), torch.tensor([12.0])]
    parameters = [nn.Parameter(values[0].clone())]
    for shape, value in zip(((1,), (1, 1)), values[1:], strict=True):
        mesh = init_device_mesh("cpu", shape)
        placements = [Replicate()] * mesh.ndim
        parameters.append(nn.Parameter(distribute_tensor(value, mesh, placements)))
    for parameter in parameters:
        parameter.grad = parameter.detach().clone()
    optimizer = torch.optim.SGD(parameters)
    clip_gradient_norm(optimizer, 6.5)
    for gradient, value in zip(local_gradients(optimizer), values, strict=True):
        torch.testing.assert_close(gradient, value / 2)
    clip_gradient_norm(optimizer, 100.0)
    for gradient, value in zip(local_gradients(optimizer), values, strict=True):
        torch.testing.assert_close(gradient, value / 2)


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


@pytest.mark.parametrize(
    ("kind", "settings"),
    [
        (torch.optim.SparseAdam, {}),
        (torch.optim.Muon, {}),
        (torch.optim.AdamW, {"lr": -1.0}),
        (torch.optim.SGD, {"lr": float("inf")}),
    ],
)
def test_optimizer_that_cannot_step_is_refused(kind: Any, settings: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=r"model\.optimizer: expected"):
        check_can_step(partial(kind, **settings))
