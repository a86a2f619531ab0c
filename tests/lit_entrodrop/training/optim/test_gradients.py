import torch
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor import Replicate, distribute_tensor

from lit_entrodrop.training.optim import (
    AdamW,
    clip_gradient_norm,
    local_gradients,
    one_mesh_per_group,
)


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
