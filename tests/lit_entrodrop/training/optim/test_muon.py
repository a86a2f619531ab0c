from functools import partial

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from lit_entrodrop.training.optim import AdamW, Muon, check_can_step

COEFFICIENTS = 3.4445, -4.7750, 2.0315


def orthogonalized(matrix: np.ndarray) -> np.ndarray:
    """Apply the quintic of Newton and Schulz five times to the singular values, in float64."""
    left, values, right = np.linalg.svd(matrix, full_matrices=False)
    values /= np.linalg.norm(values)
    first, third, fifth = COEFFICIENTS
    for _ in range(5):
        values = first * values + third * values**3 + fifth * values**5
    return np.asarray(left * values @ right)


def gradients(parameter: Tensor, count: int) -> list[Tensor]:
    generator = torch.Generator().manual_seed(1)
    return [torch.randn(parameter.shape, generator=generator) for _ in range(count)]


@pytest.mark.parametrize("shape", [(12, 5), (5, 12), (8, 8)])
@pytest.mark.parametrize("nesterov", [True, False])
def test_update_is_that_of_the_singular_values(shape: tuple[int, int], nesterov: bool) -> None:
    parameter = nn.Parameter(torch.randn(shape, generator=torch.Generator().manual_seed(0)))
    optimizer = Muon([parameter], lr=0.1, weight_decay=0.5, momentum=0.9, nesterov=nesterov)
    momentum, weight = np.zeros(shape), parameter.detach().double().numpy().copy()
    for each in gradients(parameter, 3):
        parameter.grad = each
        gradient = each.double().numpy()
        momentum = 0.9 * momentum + 0.1 * gradient
        direction = 0.9 * momentum + 0.1 * gradient if nesterov else momentum
        # The root mean square of an update of AdamW is about 0.2.
        update = 0.2 * max(shape) ** 0.5 * orthogonalized(direction)
        weight += -0.1 * 0.5 * weight - 0.1 * update
        optimizer.step()
    # PyTorch orthogonalizes in bfloat16.
    np.testing.assert_allclose(parameter.detach(), weight, atol=0.015)
    np.testing.assert_allclose(optimizer.state[parameter]["momentum_buffer"], momentum, rtol=1e-5)
    assert np.linalg.svd(update)[1].max() < 0.2 * max(shape) ** 0.5 * 1.25


def test_other_parameters_have_adamw_with_a_rate_of_their_own() -> None:
    # A matrix of a block, an embedding, a vector and a stack of experts.
    shapes = (4, 4), (6, 4), (4,), (2, 4, 4)
    own = [nn.Parameter(torch.ones(shape)) for shape in shapes]
    plain = [nn.Parameter(torch.ones(shape)) for shape in shapes[1:]]
    muon = Muon(
        [
            {"params": own[:1], "hidden": True},
            {"params": own[1:2], "hidden": False},
            {"params": own[2:], "weight_decay": 0.0},
        ],
        lr=0.1,
        weight_decay=0.3,
        adamw_lr=0.01,
        betas=(0.8, 0.9),
    )
    adamw = AdamW(
        [{"params": plain[:1]}, {"params": plain[1:], "weight_decay": 0.0}],
        lr=0.01,
        weight_decay=0.3,
        betas=(0.8, 0.9),
    )
    assert [group["lr"] for group in muon.param_groups] == [0.1, 0.01, 0.01]
    for step in range(3):
        for parameter in (*own, *plain):
            parameter.grad = torch.full_like(parameter, step - 0.5)
        muon.step()
        adamw.step()
    for mine, reference in zip(own[1:], plain, strict=True):
        assert torch.equal(mine, reference)
    assert muon.state[own[0]].keys() == {"momentum_buffer"}
    assert muon.state[own[1]].keys() == adamw.state[plain[0]].keys()


def test_schedules_reach_both_parts_also_after_loading() -> None:
    def make() -> Muon:
        parameters = [nn.Parameter(torch.ones(2, 2)), nn.Parameter(torch.ones(2))]
        return Muon([{"params": [each]} for each in parameters], lr=0.1)

    muon, loaded = make(), make()
    for optimizer in (muon, loaded):
        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 0.5**step)
        for group in optimizer.param_groups:
            for parameter in group["params"]:
                parameter.grad = torch.ones_like(parameter)
        optimizer.step()
        if optimizer is muon:
            schedule.step()
            muon.step(lambda: 1.0)
    assert [group["lr"] for group in muon.param_groups] == [0.05, 0.05]
    loaded.load_state_dict(muon.state_dict())
    with torch.no_grad():
        for mine, other in zip(muon.param_groups, loaded.param_groups, strict=True):
            other["params"][0].copy_(mine["params"][0])
    for optimizer in (muon, loaded):
        optimizer.step()
    for mine, other in zip(muon.param_groups, loaded.param_groups, strict=True):
        assert torch.equal(mine["params"][0], other["params"][0])


def test_a_gradient_scaler_skips_a_step_of_both_parts() -> None:
    parameters = [nn.Parameter(torch.ones(2, 2)), nn.Parameter(torch.ones(2))]
    optimizer = Muon([{"params": [each]} for each in parameters], lr=0.1)
    scaler = torch.amp.GradScaler("cpu", init_scale=4.0)
    for factor, moves in ((1.0, True), (torch.inf, False)):
        before = [each.detach().clone() for each in parameters]
        optimizer.zero_grad()
        loss = torch.stack([each.sum() * factor for each in parameters]).sum()
        scaler.scale(loss).backward()  # type: ignore[no-untyped-call]
        scaler.step(optimizer)
        scaler.update()
        pairs = zip(before, parameters, strict=True)
        assert all(torch.equal(old, new) != moves for old, new in pairs)


def test_settings_that_cannot_train_are_refused() -> None:
    assert isinstance(check_can_step(Muon), Muon)
    with pytest.raises(ValueError, match=r"model\.optimizer: .*infinite or NaN"):
        check_can_step(partial(Muon, lr=1e39))
    with pytest.raises(ValueError, match=r"model\.optimizer: .*Adjust learning rate function"):
        check_can_step(partial(Muon, adjust_lr_fn="other"))
    for settings in ({"momentum": 1.0}, {"ns_steps": 0}):
        with pytest.raises(ValueError, match=r"model\.optimizer: .*momentum in \[0, 1\)"):
            check_can_step(partial(Muon, **settings))
